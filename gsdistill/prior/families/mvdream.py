"""MVDream (arXiv 2308.16512): Stable Diffusion's U-Net that sees four views of an object at once, and their cameras.

Self-attention joins the f = 4 views of a group: [b f, l, c] -> [b, f l, c], attention, and back. Everything else,
cross-attention to the text too, treats each view alone. The camera is a class embedding of its camera-to-world matrix,
4 x 4, flattened by rows. The camera's axes are Blender's (x right, y up, looking along -z), the world's z is up, and
the position is scaled to length 1, so that the network knows neither distance nor field of view.
Its world is ours, without a rotation: the release's azimuth a and elevation e mean the position
(cos e sin a, -cos e cos a, sin e), and most objects show their front at a = 90, which is +x, our azimuth 0.
The training pictures have elevations of 0 to 30 degrees and fields of view of 15 to 60 (Sec. 4.1); the azimuths of a
group are 90 degrees apart. Other cameras are not refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.structs import Cameras
from gsdistill.models.card import ModelCard
from gsdistill.models.declared import UNET, Feed
from gsdistill.models.mvdream_weights import UNET_CONFIG, convert_unet
from gsdistill.prior.families.base import Origin
from gsdistill.prior.families.clip_unet import ClipUNet
from gsdistill.prior.matrices import camera_matrices

__all__ = ["UNET_CONFIG", "JointAttention", "MVDream", "convert_unet"]


class MVDream(ClipUNet):
    """Noise prediction for groups of four views, with CLIP's text that does not name the view."""

    KNOWS_CAMERAS: ClassVar[bool] = True
    FEED: ClassVar[Feed] = replace(UNET, side=32)
    view_group = 4

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        joint = JointAttention(self.view_group)
        processors = self._network.attn_processors
        self._network.set_attn_processor(
            {name: joint if name.endswith(".attn1.processor") else stock for name, stock in processors.items()}
        )

    @classmethod
    def camera_numbers(cls, card: ModelCard) -> int:
        """The 16 numbers of a matrix."""
        return 16

    def camera_features(self, cameras: Cameras) -> Float[Tensor, "B 16"]:
        """The camera-to-world matrices, with the position on the unit sphere.

        Raises:
            ConfigError: the number of cameras is not a multiple of the group.
        """
        if len(cameras) % self.view_group:
            raise ConfigError(
                f"views = {len(cameras)}: the prior {self.name} sees {self.view_group} views together, so it needs a "
                "multiple of them"
            )
        return camera_matrices(cameras, unit=True).to(self.device)


class JointAttention:
    """An attention processor for diffusers: the stock one, over the tokens of ``views`` consecutive rows together."""

    def __init__(self, views: int) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self._views, self._stock = views, AttnProcessor2_0()

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "B L C"],
        encoder_hidden_states: None = None,
        attention_mask: None = None,
    ) -> Float[Tensor, "B L C"]:
        """Self-attention of module ``attn``; diffusers' signature has text and mask too, which are None here."""
        rows, length, channels = hidden_states.shape
        joined = hidden_states.reshape(rows // self._views, self._views * length, channels)
        return self._stock(attn, joined).reshape(rows, length, channels)
