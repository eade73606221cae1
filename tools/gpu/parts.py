"""The parts of gpu_check.sh, in their order: what each one runs, how long it may take, and what to look at first.

The lines are of bash: ``python`` is the environment's, $PART the part's own folder, $WORK what all parts share. What is
written to $PART/figures.json is the part's answer, of which ``figures`` names what the summary takes, and
$PART/tests.xml tells what tests ran: none is a failure, since pytest skips them all, content, where there is no GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PARTS", "Part"]

JSON = '--json "$PART/figures.json"'
BENCH = f"python -m gsdistill bench {JSON} "
# bench where cuDNN takes the algorithm that it expects to be fastest, in place of device.prepare's trying
UNTRIED = (
    "python -c 'import sys, torch; from gsdistill.cli import main; from gsdistill.core import device; "
    "prepare = device.prepare; "
    'device.prepare = lambda *given: (prepare(*given), setattr(torch.backends.cudnn, "benchmark", False)); '
    f"sys.exit(main.execute(sys.argv[1:]))' bench {JSON} "
)
CUDA = "--device cuda --views 4 --init.count 100000 "
SD21 = f"{CUDA}--random-weights sd21-base --resolution 512 "
PEERS = f"python tools/bench/peer_loop.py {JSON} "
TESTS = 'python -m pytest -q -p no:cacheprovider --junitxml="$PART/tests.xml" '

# From the shipped weights, and back in eight bits, in pieces, for a machine from which only small files come back.
OBJECTS = (
    'python tools/train/objects_prior.py --work "$WORK/objects" --output "$WORK/objects/model" {}\n'
    'rm -rf "$WORK/objects/packed"\npython -m gsdistill prior pack "$WORK/objects/model" "$WORK/objects/packed"\n'
    'cp "$WORK/objects/model/training.json" "$PART/figures.json"\n'
    'tar -C "$WORK/objects/packed" -cf - . | split -b 15M - "$COPY/objects-prior.tar."'
)

FEW = "--views 2 --resolution 64 --init.count 1000 --steps 3 --warmup 1 "
SHAPES = f"--device cpu --prior shapes {FEW}"
TINY = 'test -f "$WORK/tiny/mvdream/model_index.json" || python tools/gpu/random_model.py "$WORK/tiny" --tiny\n'
SMALL = TINY + BENCH + "--device cpu --views 4 --resolution 16 --init.count 1000 --steps 3 --warmup 1 "

SPEED = (
    "step.median_ms", "phases.render.median_ms", "phases.encode.median_ms", "phases.network.median_ms",
    "phases.encode backward.median_ms", "phases.render backward.median_ms", "phases.optimise.median_ms",
    "evaluations_per_step", "peak_bytes", "network_share_of_matmul",
)  # fmt: skip
RATIO = ("ratio", "ratio_low", "ratio_high", "milliseconds_per_step.ours", "milliseconds_per_step.peers")
RAN = ("ran", "skipped", "failed")
RUN = ("device", "iterations", "milliseconds_per_step", "peak_memory_mb", "skipped_steps", "iterations_per_second")


@dataclass(frozen=True)
class Part:
    """One part."""

    name: str
    seconds: int  # that it should take on an H200
    limit: int  # seconds after which it is ended
    look: str
    line: str  # of bash
    small: str | None = None  # the same for a CPU and little time; none: there is no such form
    figures: tuple[str, ...] = ()


PARTS = (
    Part(
        "install", 20, 150, "the device, and that `import gsplat.csrc` works: nothing else runs without",
        '"$BASE" tools/gpu/install.py install "$WORK/venv" ${WHEELS:+"$WHEELS"}\n'
        'python tools/gpu/install.py look "$PART/figures.json"',
        '"$BASE" tools/gpu/install.py install "$WORK/venv" ${WHEELS:+"$WHEELS"} --small\n'
        'python tools/gpu/install.py look "$PART/figures.json" --small',
    ),
    Part(
        "resume", 50, 150, "a run that densifies, is stopped and goes on: finite, grown on both sides, every step once",
        f'python tools/gpu/stop_and_resume.py "$WORK/resume" --device cuda {JSON}',
        f'python tools/gpu/stop_and_resume.py "$WORK/resume" --device cpu --iterations 6 {JSON}',
        (*RUN, "gaussians_at_start_stop_and_end"),
    ),
    Part(
        "tests", 60, 180, "tests marked gpu; test_waiting: what makes a step wait for the GPU",
        TESTS + '-m "gpu and not compiles"',
        TESTS + "tests/renderer/test_cuda.py tests/training/test_clock.py",
        RAN,
    ),
    Part(
        "bench", 40, 130, "a step of SD 2.1: 62 ms were reckoned, 39 of them the autoencoder",
        BENCH + SD21 + "--method sds",
        BENCH + SHAPES + "--method sds",
        SPEED,
    ),
    Part(
        "profile", 25, 120, "kernels of a step (776 reckoned), waits (1), nchwToNhwc and copies: the layout's price",
        f'python tools/bench/profile_steps.py "$PART/kernels.txt" {JSON} {SD21}--method sds --steps 3',
        f'python tools/bench/profile_steps.py "$PART/kernels.txt" {JSON} {SHAPES}--method sds',
        ("milliseconds_on_the_wall", "milliseconds_of_kernels", "kernels", "copies", "waits", "longest_ms"),
    ),
    Part(
        "peers", 50, 150, "our loop against the peers', who pay the same autoencoder: 1.0 to 1.6 was reckoned",
        PEERS + "--prior sd21-base --views 4 --resolution 512 --n 100000 --device cuda",
        PEERS + "--prior shapes --views 2 --resolution 64 --n 1000 --steps 1 --rounds 2 --warmup 1 --device cpu",
        RATIO,
    ),
    Part(
        "vsd", 25, 100, "network 100 to 140 ms where kernels were launched singly",
        BENCH + SD21 + "--method vsd --steps 15",
        BENCH + SHAPES + "--method vsd",
        SPEED,
    ),
    Part(
        "sdi", 25, 100, "network 79 to 217 ms",
        BENCH + SD21 + "--method sdi --steps 15",
        BENCH + SHAPES + "--method sdi",
        SPEED,
    ),
    Part(
        "mvdream", 20, 100, "18 ms a step, 27 where launches are what costs",
        BENCH + CUDA + "--random-weights mvdream --method sds",
        SMALL + '--method sds --prior "$WORK/tiny/mvdream"',
        SPEED,
    ),
    Part(
        "sdxl", 40, 150, "0.55 to 0.8 s a step; a peak of 60 GiB, most of it the autoencoder's",
        BENCH + CUDA + "--random-weights sdxl --method sds --steps 10 --warmup 3",
        SMALL + '--method sds --prior "$WORK/tiny/sdxl"',
        SPEED,
    ),
    Part(
        "renderer", 30, 120, "100,000 Gaussians at 512 px",
        f"python tools/bench/renderer.py --backends cuda --scenes ball 100k --size 512 {JSON}",
        f"python tools/bench/renderer.py --backends cpu --scenes ball --n 1000 --size 64 --views 1 --repeats 2 {JSON}",
        ("rows.0.total_ms", "rows.1.total_ms", "rows.1.peak_mb"),
    ),
    Part(
        "run", 60, 180, "300 steps through all that loads a model: none skipped, and what a run adds to its steps",
        'python tools/gpu/random_model.py "$WORK/sd21" --device cuda\n'
        'python -m gsdistill generate --device cuda --prior "$WORK/sd21" --prompt "a red torus" --iterations 300 '
        '--views 4 --init.count 100000 --densify.budget 100000 --output "$WORK/run" --overwrite\n'
        'cp "$WORK/run/summary.json" "$PART/figures.json"',
        TINY + 'python -m gsdistill generate --device cpu --prior "$WORK/tiny/stable_diffusion" --prompt "a red torus" '
        '--iterations 8 --views 2 --init.count 500 --output "$WORK/run" --overwrite\n'
        'cp "$WORK/run/summary.json" "$PART/figures.json"',
        RUN,
    ),
    Part(
        "objects", 400, 560, "pictures a second: 20,000 were reckoned; the meshes are found by GSDISTILL_OBJECTS",
        OBJECTS.format(
            '--minutes "${MINUTES:-5}" --weights assets/objects-prior --seen "${SEEN:-0}" --batch 1024 --shards 1 '
            "--workers 14 --lr 1e-3 --device cuda"
        ),
        OBJECTS.format("--minutes 0.05 --channels 8 8 8 --batch 2 --workers 1 --shards 1 --device cpu"),
        ("pictures", "seconds"),
    ),
    Part(
        "contiguous", 40, 130, "against bench: whether channels last pays, or group norms turn it back each time",
        BENCH + SD21 + "--method sds --model.layout contiguous",
        SMALL + '--method sds --prior "$WORK/tiny/stable_diffusion" --model.layout channels_last',
        SPEED,
    ),
    Part(
        "untried", 40, 130, "against bench: what it saves that cuDNN tries its algorithms, here without",
        UNTRIED + SD21 + "--method sds",
        UNTRIED + SHAPES + "--method sds",
        SPEED,
    ),
    Part(
        "graph", 40, 130, "against bench and compiled: a network's call replayed without Python",
        BENCH + SD21 + "--method sds --model.graph",
        figures=SPEED,
    ),
    Part(
        "sdxl_recomputed", 40, 150, "against sdxl: 31 GiB at most, a third slower",
        BENCH + CUDA + "--random-weights sdxl --method sds --steps 10 --warmup 3 --model.recompute_encoder",
        SMALL + '--method sds --prior "$WORK/tiny/sdxl" --model.recompute_encoder',
        SPEED,
    ),
    Part(
        "compiled", 90, 200, "against bench; B and 2B must not compile twice",
        BENCH + SD21 + "--method sds --model.compile",
        figures=SPEED,
    ),
    Part(
        "peers_compiled", 90, 200, "against peers",
        PEERS + "--prior sd21-base --views 4 --resolution 512 --n 100000 --device cuda --compile",
        figures=RATIO,
    ),
    Part(
        "test_compiled", 60, 180, "CUDA graphs under torch.compile answer as eager does",
        TESTS + '-m "gpu and compiles"',
        figures=RAN,
    ),
)  # fmt: skip
