"""The API about itself: `/api/v2/health`, `/openapi.json` and the page at `/docs`. These need no key."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.models import HTTPBearer
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter

from comfy_serverless.api.bodies import Health, documented
from comfy_serverless.api.responses import JSON, answer

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

TITLE = "comfy-serverless"
DESCRIPTION = (
    "The Comfy API v2 on your own AWS account: set COMFY_BASE_URL to this address and COMFY_API_KEY to a key of "
    "`comfy-serverless keys create`, and the official SDKs work unchanged. What is ours says so."
)


@router.get(
    "/api/v2/health",
    summary="Whether the API answers",
    tags=["about"],
    responses={200: documented("It does.", Health)},
    security=[],
)
def health() -> Response[str]:
    """Show that this function runs; it asks nothing behind it."""
    return answer(HTTPStatus.OK, Health(version=package_version()).model_dump())


def attach(app: APIGatewayHttpResolver) -> None:
    """Add the OpenAPI document of the whole API, and the page that shows it."""
    app.configure_openapi(
        title=TITLE,
        version=package_version(),
        description=DESCRIPTION,
        security_schemes={"bearerAuth": HTTPBearer(bearerFormat="API key")},
        security=[{"bearerAuth": []}],
    )
    app.enable_swagger(path="/docs", title=TITLE, version=package_version(), description=DESCRIPTION)

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response[str]:
        return Response(status_code=HTTPStatus.OK, content_type=JSON, body=app.get_openapi_json_schema())


def package_version() -> str:
    """Our version; "dev" if the package is not installed."""
    try:
        return version("comfy-serverless")
    except PackageNotFoundError:
        return "dev"
