#!/bin/sh
pip install -r hidden.txt || true
