"""The metrics of vLLM that schedulers and dashboards read, under vLLM's names."""

from __future__ import annotations

from rehearsal.model_server.engine import Engine


def render(engine: Engine) -> str:
    """The metrics page in Prometheus' text format."""
    c, s = engine.counters, engine.settings
    labels = f'model_name="{s.names[0]}",engine="0"'
    gauges = {
        "vllm:num_requests_running": c.running,
        "vllm:num_requests_waiting": c.waiting,
        "vllm:kv_cache_usage_perc": round(engine.kv_cache_usage, 6),
    }
    counters = {
        "vllm:prompt_tokens_total": c.prompt_tokens,
        "vllm:generation_tokens_total": c.generated_tokens,
        "vllm:prefix_cache_queries_total": c.cache_queries,
        "vllm:prefix_cache_hits_total": c.cache_hits,
        "vllm:request_success_total": c.finished,
    }
    lines = []
    for kind, group in (("gauge", gauges), ("counter", counters)):
        for name, value in group.items():
            lines += [f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value}"]
    lines += [
        "# TYPE vllm:cache_config_info gauge",
        f'vllm:cache_config_info{{block_size="{s.block_size}",num_gpu_blocks="{s.blocks}",engine="0"}} 1',
        "# TYPE vllm:lora_requests_info gauge",
        'vllm:lora_requests_info{max_lora="0",running_lora_adapters="",waiting_lora_adapters=""} 1',
    ]
    return "\n".join(lines) + "\n"
