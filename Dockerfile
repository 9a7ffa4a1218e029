# The service of a trained model, which is mounted at /model; docs/serving.md has the commands.
FROM python:3.12-slim
WORKDIR /rqrec
COPY requirements.txt requirements-torch-cpu.txt ./
RUN pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r requirements.txt \
 && pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: --extra-index-url https://download.pytorch.org/whl/cpu \
        -r requirements-torch-cpu.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --no-deps . && useradd --create-home --uid 1000 rqrec
USER rqrec
EXPOSE 8000
ENTRYPOINT ["rqrec", "serve", "--host", "0.0.0.0"]
CMD ["--artifact", "/model"]
