# One of the consumers in Python, of examples/consumers, which is the context.
ARG PYTHON_IMAGE=docker.io/library/python:3.13.7-slim-bookworm
# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE}
WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
COPY *.py ./
RUN install -d -o 10001 -g 10001 /data
USER 10001:10001
VOLUME ["/data"]
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["python", "consumer.py"]
