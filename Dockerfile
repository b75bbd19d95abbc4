# docker build -t saliency . && docker run --rm -p 127.0.0.1:8888:8888 saliency
# starts JupyterLab; its address, with a token, stands in the output.
FROM python:3.13-slim
RUN useradd --create-home reader
USER reader
WORKDIR /home/reader/saliency
COPY --chown=reader . .
RUN PIP_NO_CACHE_DIR=1 ./run_all.sh setup
EXPOSE 8888
CMD ["./run_all.sh", "lab", "--ServerApp.ip=0.0.0.0", "--no-browser"]
