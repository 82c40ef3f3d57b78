"""Another image for processors on Lambda, beside the SAM stack's own worker: a function with queues of its own.

API, ingest ──► queue of jobs, queue of batches ──► function ──► S3, jobs table

There is one only as a release (`-c release=NAME`): without a name, the SAM stack's function is it.
"""

from __future__ import annotations

from aws_cdk import CfnOutput, Duration, Stack
from constructs import Construct

from infra import prices
from infra.images import OwnRepository
from infra.lambda_worker import feed_worker, watch_worker, worker_function
from infra.logs import save_query
from infra.queues import BATCH_RETENTION, VISIBILITY_TIMEOUTS, job_queue
from infra.sam_stack import SamStack
from infra.settings import GpuSettings
from infra.worker_image import cpu_worker_image

#: An ordinary function's longest, in seconds.
TIMEOUT_S = 900


class LambdaCpuStack(Stack):
    """The function, its queues, and their alarms."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: GpuSettings) -> None:
        super().__init__(
            scope,
            construct_id,
            stack_name=f"{settings.stack}-lambda-cpu{settings.suffix}",
            description="comfy-serverless on Lambda: another image",
            synthesizer=OwnRepository(settings),
        )
        sam = SamStack(
            self,
            settings.stack,
            input_buckets=settings.input_buckets,
            output_buckets=settings.output_buckets,
            release=settings.release,
        )
        image = cpu_worker_image(self, settings)
        visibility = Duration.seconds(VISIBILITY_TIMEOUTS * TIMEOUT_S)
        jobs = job_queue(self, "Jobs", queue_name=settings.queue_name("jobs"), visibility=visibility)
        batches = job_queue(
            self,
            "Batches",
            queue_name=settings.queue_name("batches"),
            visibility=visibility,
            retention=BATCH_RETENTION,
        )
        function = worker_function(
            self,
            settings,
            sam,
            image=image,
            queues=(jobs[0], batches[0]),
            environment=prices.of_memory(settings, settings.cpu_memory_mb),
            description="Runs one ComfyUI workflow and delivers its outputs",
            exceptions={
                "CKV_AWS_115": "The maximum concurrency of its queues limits how many run at once. To reserve some "
                "would fail in a new account, which has 10 in all",
                "CKV_AWS_116": "Only queues invoke it, which have dead letters",
                "CKV_AWS_117": "It needs nothing in a VPC: workflows fetch inputs and models from public addresses",
            },
            memory_mb=settings.cpu_memory_mb,
        )
        feed_worker(function, settings, jobs=jobs[0], batches=batches[0])
        watch_worker(self, settings, function, jobs=jobs, batches=batches)
        save_query(self, [function.log_group])
        sam.announce(
            {
                "backend": "queue",
                "job_queue_url": jobs[0].queue_url,
                "batch_queue_url": batches[0].queue_url,
                "image": image.asset_hash,
            }
        ).node.add_dependency(function)
        CfnOutput(self, "FunctionName", value=function.function_name, description="The worker")
        CfnOutput(self, "JobQueueUrl", value=jobs[0].queue_url, description="Jobs of the API wait here")
        CfnOutput(self, "BatchQueueUrl", value=batches[0].queue_url, description="Jobs of batches wait here")
