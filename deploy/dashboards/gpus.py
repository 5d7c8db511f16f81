"""The GPUs, as NVIDIA's dcgm-exporter shows them."""

from __future__ import annotations

from deploy.dashboards.grafana import Dashboard, Panel, Query, Row
from deploy.dashboards.variables import GPU, GPUS, NODE

_EACH = "Hostname, gpu"
_NAME = "{{Hostname}} GPU {{gpu}}"


def _gauge(field: str, by: str = _EACH) -> str:
    return f"max by ({by}) ({field}{{{GPUS}}})"


_WORK = Row(
    100,
    "Work",
    [
        Panel(
            1,
            "Busy",
            "Share of time in which some kernel ran. A GPU that decodes for one user is busy, too: it says little of"
            " the load.",
            "percent",
            [Query(_gauge("DCGM_FI_DEV_GPU_UTIL"), _NAME)],
            top=100,
        ),
        Panel(
            2,
            "Tensor cores",
            "Share of time in which tensor cores worked. High with long prompts, low while decoding.",
            "percentunit",
            [Query(_gauge("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"), _NAME)],
            top=1,
        ),
        Panel(
            3,
            "Memory bandwidth",
            "Share of time in which the memory was read or written. Decoding is bounded by it.",
            "percentunit",
            [Query(_gauge("DCGM_FI_PROF_DRAM_ACTIVE"), _NAME)],
            top=1,
        ),
        Panel(
            4,
            "Memory in use",
            "vLLM takes its share (gpu_memory_utilization) at the start and keeps it: a flat line is right. How full"
            " its KV cache is, is on the Engine dashboard.",
            "percentunit",
            [
                Query(
                    f"max by ({_EACH}) (DCGM_FI_DEV_FB_USED{{{GPUS}}}"
                    f" / (DCGM_FI_DEV_FB_USED{{{GPUS}}} + DCGM_FI_DEV_FB_FREE{{{GPUS}}}))",
                    _NAME,
                )
            ],
            steps=(0.95, 0.99),
            top=1,
        ),
        Panel(
            5,
            "PCIe",
            "Bytes a second over PCIe. Much of it while nothing loads: something is offloaded to the host.",
            "Bps",
            [
                Query(_gauge("DCGM_FI_PROF_PCIE_RX_BYTES"), f"in {_NAME}"),
                Query(_gauge("DCGM_FI_PROF_PCIE_TX_BYTES"), f"out {_NAME}"),
            ],
        ),
        Panel(
            6,
            "NVLink",
            "Traffic between the GPUs of a machine, in MB a second, as tensor parallelism needs it. 0 on a replica of"
            " several GPUs: it goes over PCIe, and slowly.",
            "MBs",
            [Query(_gauge("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL"), _NAME)],
        ),
    ],
)

_HEALTH = Row(
    101,
    "Health",
    [
        Panel(
            20,
            "Faults: Xid",
            "Number of the last fault that the driver reported, 0 if none. 79: fallen off the bus. 48, 63, 64, 94,"
            " 95: memory. The runbook gpu-fault says what to do.",
            "short",
            [Query(_gauge("DCGM_FI_DEV_XID_ERRORS"), _NAME)],
            steps=(1, 1),
        ),
        Panel(
            21,
            "Rows of memory that could not be mended",
            "Uncorrectable faults of memory, and 1 where mapping a row elsewhere failed. Not 0: the card has to be"
            " exchanged.",
            "short",
            [
                Query(_gauge("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"), f"uncorrectable {_NAME}"),
                Query(_gauge("DCGM_FI_DEV_ROW_REMAP_FAILURE"), f"failed {_NAME}"),
            ],
            steps=(1, 1),
        ),
        Panel(
            22,
            "PCIe replays",
            "Transfers that had to be repeated, a second. A steady rate: cable, slot or card.",
            "ops",
            [Query(f"sum by ({_EACH}) (rate(DCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{GPUS}}}[$__rate_interval]))", _NAME)],
        ),
        Panel(
            23,
            "Temperature",
            "Of the chip. Most cards slow down from about 85 °C.",
            "celsius",
            [Query(_gauge("DCGM_FI_DEV_GPU_TEMP"), _NAME)],
            steps=(80, 87),
        ),
        Panel(
            24,
            "Temperature of the memory",
            "High-bandwidth memory slows down from about 95 °C. Cards without a sensor show 0.",
            "celsius",
            [Query(_gauge("DCGM_FI_DEV_MEMORY_TEMP"), _NAME)],
            steps=(90, 95),
        ),
        Panel(
            25,
            "Power",
            "A card at its limit lowers its clock.",
            "watt",
            [Query(_gauge("DCGM_FI_DEV_POWER_USAGE"), _NAME)],
        ),
        Panel(
            26,
            "Clock",
            "Of the processors. Falling under load: heat or power.",
            "hertz",
            [Query(f"1e6 * {_gauge('DCGM_FI_DEV_SM_CLOCK')}", _NAME)],
        ),
        Panel(
            27,
            "Energy",
            "Watts, by the counter of energy, all chosen GPUs together.",
            "watt",
            [
                Query(
                    f"sum (rate(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{GPUS}}}[$__rate_interval])) / 1000",
                    "all",
                )
            ],
        ),
    ],
)

GPUS_BOARD = Dashboard(
    "gemma-gpus",
    "Gemma / GPUs",
    "Work and health of the GPUs, by NVIDIA's dcgm-exporter, which has to run beside the engines.",
    [NODE, GPU],
    [_WORK, _HEALTH],
)
