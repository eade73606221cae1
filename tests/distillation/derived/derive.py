"""The gradient of every score-distillation method, written from the papers' formulas and the released programs.

Notation: x_t = alpha_t x0 + sigma_t noise, s_t = sigma_t / alpha_t, h = eps_c - eps_u or the
Perp-Neg aggregate, eps_cfg = eps_u + omega h. The result g is what x0 descends along. Nothing is drawn in here.

Arguments that many functions share:
  eps      the prior, eps(x [B, C, h, w], t [B], text [B, L, D], camera [B, 16] or None) -> the noise like x
  levels   (alphas [T], sigmas [T])
  x0       the clean latents [B, C, h, w];  t the timesteps [B], integers;  noise like x0
  texts    embeddings by branch, each [B, L, D]: `positive` (with the view's words) and `empty` always; `negative`
           where a negative prompt is set; `plain` (no view words); `perp0`, `perp1` and `perp_weights` [B, 2] for
           Perp-Neg; `target`, `source` for SDS-Bridge. NFSD's p_neg is `negative`
"""

from __future__ import annotations

import itertools
import math

import torch

# ------------------------------------------------------------------------------------------ levels and weights


def variance_preserving(length=1000, first=0.00085, last=0.012):
    """Scaled-linear betas: beta_t = (linear from sqrt first to sqrt last)^2; alpha^2 = product of 1 - beta."""
    betas = torch.linspace(first**0.5, last**0.5, length, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, dim=0)
    return kept.sqrt(), (1 - kept).sqrt()


def rectified_flow(length=1000, shift=3.0):
    """alpha = 1 - s, sigma = s, s = shift u / (1 + (shift - 1) u) at u = (t + 1) / T, as SD3's scheduler has it."""
    u = torch.arange(1, length + 1, dtype=torch.float64) / length
    s = shift * u / (1 + (shift - 1) * u)
    return 1 - s, s


def wide(values):
    """[B] -> [B, 1, 1, 1]."""
    return values[:, None, None, None]


def at(levels, t):
    """alpha_t and sigma_t as [B, 1, 1, 1]."""
    return wide(levels[0][t]), wide(levels[1][t])


def weight(kind, levels, t):
    """w(t) [B, 1, 1, 1]: sds sigma^2, uniform 1, fantasia3d alpha sigma^2, snr sigma / alpha, flow 1 / alpha,
    pf-ode s_t - s_{t-1} with s_{-1} = 0 ("FSD: Exactness" of its paper; flow is the loss of a rectified flow).
    """
    alpha, sigma = at(levels, t)
    if kind == "pf-ode":
        ratio = torch.cat([torch.zeros(1, dtype=torch.float64), levels[1] / levels[0]])
        return wide(ratio[t + 1] - ratio[t])
    kinds = {
        "sds": sigma**2,
        "uniform": torch.ones_like(alpha),
        "fantasia3d": alpha * sigma**2,
        "snr": sigma / alpha,
        "flow": 1 / alpha,
    }
    return kinds[kind]


def noised(levels, x0, noise, t):
    """x_t = alpha_t x0 + sigma_t noise."""
    alpha, sigma = at(levels, t)
    return alpha * x0 + sigma * noise


def refreshed(old, fresh, rate):
    """CFD's stochastic refresh of a noise buffer: sqrt(1 - rate) old + sqrt(rate) fresh (its released program)."""
    return math.sqrt(1 - rate) * old + math.sqrt(rate) * fresh


# ------------------------------------------------------------------------------------------------------ guidance


def inner(a, b):
    """<a, b> of each sample, [B, 1, 1, 1]."""
    return (a * b).sum(dim=(1, 2, 3), keepdim=True)


def norm(a):
    """The Euclidean norm of each sample, [B, 1, 1, 1]."""
    return inner(a, a).sqrt()


def unconditional(texts):
    """The text of eps_u: the negative prompt where there is one, else the empty text."""
    return texts.get("negative", texts["empty"])


def perpendicular(eps, x, t, texts, camera, positive, base, factor=1.0):
    """Perp-Neg's addition sum_i w_i (h_i - <h_i, p> / <p, p> p), p = `positive`, h_i = eps(negative_i) - `base`
    (2304.04968; page of formulas, "Guidance helpers"). `factor` multiplies the weights (ScaleDreamer 0.5).
    """
    total = torch.zeros_like(x)
    if "perp0" in texts:
        for i, name in enumerate(("perp0", "perp1")):
            h = eps(x, t, texts[name], camera) - base
            h = h - inner(h, positive) / inner(positive, positive) * positive
            total = total + factor * wide(texts["perp_weights"][:, i]) * h
    return total


def guidance(eps, x, t, texts, camera=None, factor=1.0, base=None, positive="positive"):
    """(eps_c, eps_u, h): h is eps_c - eps_u plus Perp-Neg's addition. `base` is another text for eps_u."""
    e_c = eps(x, t, texts[positive], camera)
    e_u = eps(x, t, unconditional(texts) if base is None else base, camera)
    h = e_c - e_u
    return e_c, e_u, h + perpendicular(eps, x, t, texts, camera, h, e_u, factor)


def guided(eps, x, t, texts, omega, camera=None, factor=1.0):
    """eps_cfg = eps_u + omega h."""
    _, e_u, h = guidance(eps, x, t, texts, camera, factor)
    return e_u + omega * h


def rescaled(x, guided_noise, plain_noise, alpha, sigma, amount, group=1, floor=0.0):
    """The guided noise whose clean estimate has partly the spread of the conditional one (CFG rescale).

    x0 = (x - sigma e) / alpha of both; ratio = (std(x0_c) + floor) / (std(x0_cfg) + floor), the standard deviation
    over all elements of a view, or of a group of views; x0' = amount ratio x0_cfg + (1 - amount) x0_cfg.
    The programs have floor 1e-8 (Consistent3D `get_rescaled_sample`, MVDream `recon_std_rescale`).
    """
    x0, target = (x - sigma * guided_noise) / alpha, (x - sigma * plain_noise) / alpha
    ratio = (target.reshape(len(x) // group, -1).std(1) + floor) / (x0.reshape(len(x) // group, -1).std(1) + floor)
    x0 = (amount * wide(ratio.repeat_interleave(group)) + (1 - amount)) * x0
    return (x - alpha * x0) / sigma


def perp_neg(azimuth, elevation, front, side, back, overhead, unconditional_text):
    """threestudio's Perp-Neg of one camera, in degrees: (positive text, perp0, perp1, [w0, w1]).

    The azimuth is brought to [-180, 180). f(r; a, b, c) = a exp(-b r) + c and the weights are -f. Elevation above 60
    takes the overhead text, the unconditional text twice and weights 0 (page of formulas, "Guidance helpers").
    """
    if elevation > 60:
        return overhead, unconditional_text, unconditional_text, [0.0, 0.0]
    away = abs((azimuth + 180) % 360 - 180)

    def f(r, a, b, c):
        return a * math.exp(-b * r) + c

    if away < 90:
        r = 1 - away / 90
        return r * front + (1 - r) * side, front, side, [-f(r, 4, 0.5, -2.426), -f(1 - r, 4, 0.5, -2.426)]
    r = 2 - away / 90
    return r * side + (1 - r) * back, side, front, [-f(r, 1, 0.5, -0.606), -f(r, 1, 0.5, 0.967)]


# ------------------------------------------------------------------------------------ SDS and its nearest kin


def sds(eps, levels, x0, t, noise, texts, omega, camera=None, **options):
    """DreamFusion (2209.14988), eq. 3: g = w(t) (eps_cfg(x_t) - noise).

    Options: weighting (sds); variance_reduction "adaptive": the noise is multiplied by r = <eps_c, noise> /
    <noise, noise> (2312.09305, Sec. 10 and eq. 8); rescale, group and floor as in `rescaled` (MVDream 0.5, 4).
    With weighting snr and rescale this is MVDream's loss 0.5 |x0 - x0'|^2: g = x0 - x0'.
    """
    x = noised(levels, x0, noise, t)
    e_c, e_u, h = guidance(eps, x, t, texts, camera)
    e = e_u + omega * h
    if options.get("rescale", 0):
        alpha, sigma = at(levels, t)
        e = rescaled(x, e, e_c, alpha, sigma, options["rescale"], options.get("group", 1), options.get("floor", 0.0))
    r = inner(e_c, noise) / inner(noise, noise) if options.get("variance_reduction") == "adaptive" else 1.0
    return weight(options.get("weighting", "sds"), levels, t) * (e - r * noise)


def ssd(eps, levels, x0, t, noise, texts, omega, limit, weighting="sds", camera=None):
    """Stable Score Distillation (2312.09305), Algorithm 1: g = w(t) omega E.

    t > M (`limit`): E = h. Else r = <eps_c, noise> / <noise, noise> (eq. 8), E' = eps_c - r noise (eq. 9),
    E = |h| / |E'| E', each sample for itself. M = 0 gives CSD: then t = 0 alone has t <= M, and CSD's own function
    below has no such case.
    """
    x = noised(levels, x0, noise, t)
    e_c, _, h = guidance(eps, x, t, texts, camera)
    seeking = e_c - inner(e_c, noise) / inner(noise, noise) * noise
    seeking = norm(h) / norm(seeking) * seeking
    estimate = torch.where(wide(t > limit), h, seeking)
    return weight(weighting, levels, t) * omega * estimate


def csd(eps, levels, x0, t, noise, texts, omega, weighting="sds", camera=None):
    """Classifier Score Distillation (2310.19415), the plain form: g = w(t) omega h."""
    _, _, h = guidance(eps, noised(levels, x0, noise, t), t, texts, camera)
    return weight(weighting, levels, t) * omega * h


def csd_released(eps, levels, x0, t, noise, texts, cond, uncond, null, perp, weighting, normalised=False, camera=None):
    """CSD's program: g = w(t) (cond eps_c + uncond eps_neg + null eps_empty + perp P).

    P is Perp-Neg's addition against h = eps_c - eps_neg, with h_i = eps_i - eps_neg. Without a negative prompt
    eps_neg is asked with the empty text. `normalised`: g is divided by its norm over the whole batch (+ 1e-8).
    """
    x = noised(levels, x0, noise, t)
    e_c, e_n, e_0 = (eps(x, t, text, camera) for text in (texts["positive"], unconditional(texts), texts["empty"]))
    g = cond * e_c + uncond * e_n + null * e_0
    g = g + perp * perpendicular(eps, x, t, texts, camera, e_c - e_n, e_n)
    g = weight(weighting, levels, t) * g
    return g / (g.norm() + 1e-8) if normalised else g


def csd_scales(stage, step):
    """The three factors (cond, uncond, null) of the released stages at a step, each linear and then constant.

    `if` (csd-if.yaml): uncond 0 -> -1 and null -1 -> 0 over 5,000 steps. `sd` (csd-sd-refine.yaml): uncond
    -1 -> -0.5 and null 0 -> -0.5 over 10,000. Both have 10,000 steps; Perp-Neg's factor is 3 (if) and 0 (sd).
    """
    if stage == "if":
        share = min(step / 5000, 1.0)
        return 1.0, -share, share - 1.0
    share = min(step / 10000, 1.0)
    return 1.0, -1 + 0.5 * share, -0.5 * share


def nfsd(eps, levels, x0, t, noise, texts, omega, weighting="sds", camera=None):
    """Noise-Free Score Distillation (2310.17590), as SDS-Bridge's program has it: g = w(t) (omega h + d).

    h = eps_c - eps_empty; d = eps_empty where t < 200, else eps_empty - eps(p_neg). The noise enters x_t only.
    With Perp-Neg (the program has none) h is the aggregate about eps_empty.
    """
    x = noised(levels, x0, noise, t)
    _, e_0, h = guidance(eps, x, t, texts, camera, base=texts["empty"])
    e_n = eps(x, t, texts["negative"], camera)
    d = torch.where(wide(t < 200), e_0, e_0 - e_n)
    return weight(weighting, levels, t) * (omega * h + d)


def bridge(eps, levels, x0, t, noise, texts, stage, omega, weighting, camera=None):
    """SDS-Bridge (2406.09417). Stage 1: SDS with the target text, g = w(t) (eps_u + omega (eps_tgt - eps_u) - noise).
    Stage 2: g = w(t) omega (eps_tgt - eps_src), the source text being the prompt with its bad words.
    """
    x = noised(levels, x0, noise, t)
    w = weight(weighting, levels, t)
    e_t = eps(x, t, texts["target"], camera)
    if stage == 2:
        return w * omega * (e_t - eps(x, t, texts["source"], camera))
    e_u = eps(x, t, unconditional(texts), camera)
    return w * (e_u + omega * (e_t - e_u) - noise)


# ------------------------------------------------------------------------------------- methods of the noise path


def cds(eps, levels, x0, t, n, noise, texts, omega, weighting="uniform", rescale=0.0, clip=None, camera=None, **floors):
    """Consistency Distillation Sampling (Consistent3D, 2401.09050), in the ratio s = sigma / alpha.

    z_t = x0 + s_t noise; e1 = eps_cfg at z_t / sqrt(1 + s_t^2), t; e1' the rescaled e1 (its clean estimate
    z_t - s_t e1); z_n = z_t + (s_n - s_t) e1'; e2 = eps_cfg at z_n / sqrt(1 + s_n^2), n, never rescaled;
    g = -w(t) [(s_t / s_n) (e1' - e1) + (e2 - e1')], then clipped element by element. Without rescale: w (e1 - e2).
    Sign as in the program (it descends along minus its own `grad_latents`). The program has two small numbers, both 0
    here by default: `floor` 1e-8 added to each standard deviation, `beside` 1e-9 added to s_n in s_t / s_n.
    """
    (alpha, sigma), (alpha_n, sigma_n) = at(levels, t), at(levels, n)
    s, s_n = sigma / alpha, sigma_n / alpha_n
    z = x0 + s * noise
    x = z / (1 + s**2).sqrt()
    e_c, e_u, h = guidance(eps, x, t, texts, camera)
    e1 = e_u + omega * h
    one = torch.ones_like(s)
    turned = rescaled(z, e1, e_c, one, s, rescale, floor=floors.get("floor", 0.0)) if rescale else e1
    z_n = z + (s_n - s) * turned
    e2 = guided(eps, z_n / (1 + s_n**2).sqrt(), n, texts, omega, camera)
    g = -weight(weighting, levels, t) * (s / (s_n + floors.get("beside", 0.0)) * (turned - e1) + (e2 - turned))
    return g if clip is None else g.clamp(-clip, clip)


def cds_schedule(progress, guidance_range=(101.0, 51.0), near=(700.0, 100.0), clip=(2.0, 8.0)):
    """The coarse stage's omega and clip (linear) and n before rounding (square root), of progress 0..1."""
    omega, limit = (a + (b - a) * progress for a, b in (guidance_range, clip))
    return omega, near[0] + (near[1] - near[0]) * math.sqrt(progress), limit


def cds_times(near, jump, length=1000, least=0.1, most=0.98, gap=100):
    """(t, n) of the program: n clamped to [least T, most T - gap], t = n + jump clamped to [least T, most T].
    `jump` is the draw from {gap, .., gap + spread - 1}.
    """
    low, high = int(least * length), int(most * length)
    n = min(max(int(near), low), high - gap)
    return min(max(n + jump, low), high), n


def fsd(eps, levels, x0, t, fixed, texts, omega, weighting, sqrt_beta=1.0, fresh=None, camera=None):
    """Flow Score Distillation (2405.10988): g = w(t) (eps_cfg(x_t) - e), x_t = alpha_t x0 + sigma_t e.

    e = sqrt_beta fixed + sqrt(1 - sqrt_beta^2) fresh; `fixed` is the camera's noise, [B, ..] or [1, ..]. With
    weighting snr and the surface noise this is CFD (2501.05445), g = (sigma / alpha) (eps_cfg - e).
    """
    e = fixed.expand_as(x0)
    if sqrt_beta < 1:
        e = sqrt_beta * e + math.sqrt(1 - sqrt_beta**2) * fresh
    return weight(weighting, levels, t) * (guided(eps, noised(levels, x0, e, t), t, texts, omega, camera) - e)


def fsd_run(eps, levels, theta, fixed, texts, omega, first):
    """theta after the descents with step 1 at t = first, first - 1, .., 0 and weighting pf-ode."""
    for t in range(first, -1, -1):
        theta = theta - fsd(eps, levels, theta, torch.full((len(theta),), t), fixed, texts, omega, "pf-ode")
    return theta


def ddim_run(eps, levels, x, texts, omega, first):
    """DDIM (eta 0) from x at `first` through every timestep; the step after t = 0 is to alpha 1, sigma 0."""
    for t in range(first, -1, -1):
        e = guided(eps, x, torch.full((len(x),), t), texts, omega)
        x0 = (x - levels[1][t] * e) / levels[0][t]
        x = levels[0][t - 1] * x0 + levels[1][t - 1] * e if t else x0
    return x


def worldmap_buffer(white, width, theta=180.0):
    """FSD's padded world map of white noise [C, (180/theta) h + h, (360/theta) w + w], periodic in the azimuth.

    The first w/2 columns repeat those from (360/theta) w on, then the last w/2 columns repeat the columns w/2 .. w.
    """
    columns, half, buffer = int(360 / theta * width), width // 2, white.clone()
    buffer[..., :half] = white[..., columns : columns + half]
    buffer[..., -half:] = buffer[..., half : 2 * half]
    return buffer


def worldmap(buffer, azimuth, elevation, height, width, theta=180.0):
    """FSD's noise [C, h, w] of one camera (degrees): a crop of the padded world map, its corner truncated."""
    rows, columns = int(180 / theta * height), int(360 / theta * width)
    row, column = int(-elevation * rows / 180 % rows), int(azimuth * columns / 360 % columns)
    return buffer[:, row : row + height, column : column + width]


def shifted(t, least, share, length=1000, eta=0.1, floor=1):
    """ASD's later timestep of one sample: t + trunc(min(eta (t - least), T - 1 - t) share), then in [floor, T - 1].
    The shift is clipped before it is multiplied by the draw `share`. `least` is the current t_min.
    """
    shift = min(max(eta * (t - least), 0.0), length - 1 - t) * share
    return min(max(t + int(shift), floor), length - 1)


def asd(eps, levels, x0, t, later, noise, texts, omega, weighting="sds", factor=0.5, camera=None):
    """Asynchronous Score Distillation (ScaleDreamer, 2407.02040): g = w(t) (eps_cfg(x_t, t) - eps_c(x_later, later)),
    the same noise in both, the second conditional without guidance. `factor` multiplies the Perp-Neg weights.
    """
    e = guided(eps, noised(levels, x0, noise, t), t, texts, omega, camera, factor)
    return weight(weighting, levels, t) * (e - eps(noised(levels, x0, noise, later), later, texts["positive"], camera))


# ---------------------------------------------------------------------------------------- methods with inversion


def each(x, t):
    """The one timestep t for all samples of x."""
    return torch.full((len(x),), t)


def ism(eps, levels, x0, t, s, noise, texts, omega, weighting="snr", camera=None, **options):
    """Interval Score Matching (LucidDreamer, 2311.11284, eq. 14 and 17), as its program; t and s are one for all views.

    x_s: from x_start = alpha x0 + sigma noise by DDIM steps of `stride` (200) up to s, at most `steps` (5), where
    start = max(s - stride steps, 1): the program's first timestep is 1, its grid 1, 201, 401, ... A step with xs_eta:
    v = |(1 - A') / (1 - A) (1 - A / A')|, d^2 = min((1 - A') / 2, eta v), A = alpha^2, ' the next time;
    x' = alpha' x0^ + sqrt(1 - A' - d^2) e + d `step_noise[k]`. Then one more step without eta, from s to t.
    e of the inversion: eps_empty, or with denoise > 1 eps_empty + denoise (eps_u - eps_empty).
    g = w(t) (eps_cfg(x_t, t) - e(x_s, s)).
    """
    stride, steps, eta = options.get("stride", 200), options.get("steps", 5), options.get("eta", 0.0)
    denoise = options.get("denoise", 1.0)

    def inverse(x, now):
        e = eps(x, each(x, now), texts["empty"], camera)
        return e if denoise <= 1 else e + denoise * (eps(x, each(x, now), unconditional(texts), camera) - e)

    def step(x, e, now, then, eta, draw):
        a, b = levels[0][now] ** 2, levels[0][then] ** 2
        spread = torch.minimum((1 - b) / 2, eta * ((1 - b) / (1 - a) * (1 - a / b)).abs()).sqrt()
        x = b.sqrt() * (x - (1 - a).sqrt() * e) / a.sqrt() + (1 - b - spread**2).sqrt() * e
        return x + spread * draw if eta else x

    if steps is None:
        steps = math.ceil((s - 1) / stride)
    now = max(s - stride * steps, 1)
    x = noised(levels, x0, noise, each(x0, now))
    for k in range(steps):
        if now == s:
            break
        then = min(now + stride, s)
        x, now = step(x, inverse(x, now), now, then, eta, options["step_noise"][k] if eta else None), then
    target = inverse(x, s)
    x = step(x, target, s, t, 0.0, None)
    return weight(weighting, levels, each(x0, t)) * (guided(eps, x, each(x0, t), texts, omega, camera) - target)


def sdi_grid(t, delta, length=1000, steps=10, offset=1):
    """SDI's times for one view: -99, 1, 101, .., those below t, then min(t + delta, T - 1); delta in {0, .., 99}."""
    stride = length // steps
    grid = [k * stride + offset for k in range(steps) if k * stride + offset < t]
    return [grid[0] - stride, *grid, min(t + delta, length - 1)]


def sdi(eps, levels, x0, t, delta, step_noise, texts, omega, omega_inversion, eta=0.3, camera=None, **options):
    """Score Distillation via Inversion (2405.15891), threestudio's program; t is one for all views.

    From x = x0 along `sdi_grid`, each step with eps_cfg(omega_inversion) at the step's first time: x' = alpha' x0^ +
    sigma' e + eta sqrt(v) step_noise[k], v = (1 - A) / (1 - A') (1 - A' / A), A = alpha^2 now, A' next; alpha(-99) =
    alphas[0]. The program asks the network at -99 itself; `asked_first` is another time for that call.
    Then e = eps_cfg(omega) at x and at t (not t + delta), and g = x0 - (x - sigma_t e) / alpha_t
    = (sigma_t / alpha_t) (e - (x - alpha_t x0) / sigma_t).
    With `remapped` the noise is taken out at the last time and put in at t: e_inv = (x - alpha_last x0) / sigma_last,
    x_t = alpha_t x0 + sigma_t e_inv, g = (sigma_t / alpha_t) (eps_cfg(x_t, t) - e_inv).
    """
    grid, x = sdi_grid(t, delta), x0
    for k, (now, then) in enumerate(itertools.pairwise(grid)):
        asked = options.get("asked_first", now) if k == 0 else now
        e = guided(eps, x, each(x, asked), texts, omega_inversion, camera)
        a, b = levels[0][max(now, 0)] ** 2, levels[0][then] ** 2
        x = b.sqrt() * (x - (1 - a).sqrt() * e) / a.sqrt() + (1 - b).sqrt() * e
        x = x + eta * ((1 - a) / (1 - b) * (1 - b / a)).sqrt() * step_noise[k]
    alpha, sigma = at(levels, each(x0, t))
    if options.get("remapped", False):
        found = (x - levels[0][grid[-1]] * x0) / levels[1][grid[-1]]
        x = alpha * x0 + sigma * found
    return x0 - (x - sigma * guided(eps, x, each(x0, t), texts, omega, camera)) / alpha


def dsd(eps, levels, x0, t, later, start, texts, omega, path=10, reference="conditional", camera=None):
    """Diverse Score Distillation (2412.06780), its program; t and later = t + d (see `shifted`) are one for all views.

    DDIM with eps_cfg(omega) from the seed's noise `start` ([1, ..] or [B, ..]) along the times of {T-1, .., 0}, cut in
    `path` equal parts and truncated, that lie above later, then later; e* = eps_cfg(omega) there. Then
    g = sigma_t^2 (eps_cfg(alpha_t x0 + sigma_t e*, t) - e_ref(alpha_later x0 + sigma_later e*, later)). e_ref is eps_c
    ("conditional"), or eps_u + h as the program has it with Perp-Neg ("guided": omega 1, Perp-Neg's part
    stays in). Without Perp-Neg the two are equal.
    """
    length = len(levels[0])
    times = [int(length - 1 - (length - 1) * k / path + 1e-9) for k in range(path + 1)]
    times = [*(time for time in times if time > later), later]
    x = start.expand_as(x0)
    for now, then in itertools.pairwise(times):
        e = guided(eps, x, each(x, now), texts, omega, camera)
        x = levels[0][then] * (x - levels[1][now] * e) / levels[0][now] + levels[1][then] * e
    found = guided(eps, x, each(x, later), texts, omega, camera)
    x_later, x_t = (noised(levels, x0, found, each(x0, time)) for time in (later, t))
    if reference == "guided":
        base = guided(eps, x_later, each(x0, later), texts, 1.0, camera)
    else:
        base = eps(x_later, each(x0, later), texts["positive"], camera)
    return weight("sds", levels, each(x0, t)) * (guided(eps, x_t, each(x0, t), texts, omega, camera) - base)


# --------------------------------------------------------------------------------------- methods with a student


def student_noise(student, levels, x, t, texts, camera, scale, prediction):
    """The student's noise: with the plain prompt, guided over the camera, e_0 + scale (e_cam - e_0), e_0 with sixteen
    zeros for the camera. A velocity v is turned into noise: sigma_t x + alpha_t v.
    """
    alpha, sigma = at(levels, t)
    both = [student(x, t, texts["plain"], c) for c in (camera, torch.zeros_like(camera))]
    e_camera, e_zero = [sigma * x + alpha * v for v in both] if prediction == "v" else both
    return e_zero + scale * (e_camera - e_zero)


def vsd(eps, student, levels, x0, t, noise, texts, camera, omega, scale=1.0, prediction="epsilon", weighting="sds"):
    """Variational Score Distillation (ProlificDreamer, 2305.16213, eq. 9), threestudio's program:
    g = w(t) (eps_cfg(x_t) - eps_student(x_t)). `scale` is guidance_scale_lora; 0.5 is Entropic Score Distillation.
    The prior sees the view's text and no camera, the student the plain text and the camera.
    """
    x = noised(levels, x0, noise, t)
    e_student = student_noise(student, levels, x, t, texts, camera, scale, prediction)
    return weight(weighting, levels, t) * (guided(eps, x, t, texts, omega) - e_student)


def student_training(student, levels, x0, t, noise, texts, camera, dropped=False, prediction="epsilon"):
    """(loss, gradient by the student's output): mean |output - target|^2 over all elements. The target is the noise, or
    the velocity alpha_t noise - sigma_t x0. `dropped`: zeros in place of the cameras of the whole batch (p 0.1).
    """
    alpha, sigma = at(levels, t)
    seen = torch.zeros_like(camera) if dropped else camera
    output = student(noised(levels, x0, noise, t), t, texts["plain"], seen)
    error = output - (alpha * noise - sigma * x0 if prediction == "v" else noise)
    return (error**2).mean(), 2 * error / error.numel()


# ------------------------------------------------------------------------------------------------ rectified flow


def velocity(alpha, x, e):
    """The velocity u of a noise prediction: e = x + (1 - s) u, so u = (e - x) / alpha."""
    return (e - x) / alpha


def rfds(eps, levels, x0, t, noise, texts, omega, draws=None, camera=None):
    """RFDS (2406.03293): the gradient of 0.5 |u_cfg - (noise - x0)|^2 by x0 without the network's Jacobian,
    g = u_cfg - (noise - x0) = (eps_cfg - noise) / alpha_t. SD3's program multiplies the step's loss by the mean over
    the views of sigmoid(`draws`), draws normal [B].
    """
    x = noised(levels, x0, noise, t)
    u = velocity(at(levels, t)[0], x, guided(eps, x, t, texts, omega, camera))
    return (u - (noise - x0)) * (1.0 if draws is None else torch.sigmoid(draws).mean())


def rfds_rev(eps, levels, x0, t, noise, texts, omega, step="sigma", camera=None):
    """RFDS-Rev (2406.03293): first noise <- noise + k (u(x_t, positive text alone) + x0 - noise), k = 1 - s ("sigma",
    SD3's program) or 1 ("one", the program for 2-rectified flow), then RFDS with that noise and a new x_t.
    With k = 1 - s the new noise is eps_c(x_t) itself.
    """
    alpha, _ = at(levels, t)
    x = noised(levels, x0, noise, t)
    u = velocity(alpha, x, eps(x, t, texts["positive"], camera))
    noise = noise + (alpha if step == "sigma" else 1.0) * (u + x0 - noise)
    return rfds(eps, levels, x0, t, noise, texts, omega, camera=camera)
