"""The choices at the top of dashboards, and how queries take them up."""

from __future__ import annotations

from deploy.dashboards.grafana import Variable

NAMESPACE = Variable(
    "namespace",
    "Namespace",
    "gemma_gateway_requests_in_flight",
    "Kubernetes namespace of the gateways. Without Kubernetes there is none: leave it at All.",
)
MODEL = Variable("model", "Model", "gemma_gateway_requests_total", "The name that clients ask for.")
KEY = Variable("key", "Key", "gemma_gateway_key_requests_total", "Public id of a key, or name of a token provider.")
ENGINE_NAMESPACE = Variable(
    "namespace",
    "Namespace",
    "vllm:num_requests_running",
    "Kubernetes namespace of the engines. Without Kubernetes there is none: leave it at All.",
)
SERVED = Variable("model_name", "Served model", "vllm:num_requests_running", "The name that the engine serves.")
REPLICA = Variable("instance", "Replica", "vllm:num_requests_running", "Address of one engine.")
NODE = Variable("Hostname", "Node", "DCGM_FI_DEV_GPU_UTIL", "Machine that the GPUs are in.")
GPU = Variable("gpu", "GPU", "DCGM_FI_DEV_GPU_UTIL", "Number of the GPU within its machine.")

#: Every gateway.
GATEWAYS = 'namespace=~"$namespace"'
#: What is counted by model.
MODELS = f'{GATEWAYS}, model=~"$model"'
#: What is counted by key.
KEYS = f'{GATEWAYS}, key=~"$key"'
#: What vLLM counts.
ENGINES = f'{GATEWAYS}, model_name=~"$model_name", instance=~"$instance"'
#: What DCGM measures.
GPUS = 'Hostname=~"$Hostname", gpu=~"$gpu"'
