"""Any image network of timm, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import did_you_mean, refuse
from sparselab.inputs.models.family import MODELS, ImageFamily
from sparselab.inputs.models.transform import Transformable

if TYPE_CHECKING:
    from torch import nn


@MODELS.register("timm")
class TimmModel(Transformable, ImageFamily):
    """``timm.create_model(arch)`` with random weights; nothing is downloaded.

    Networks of a fixed input size are made for the data's size. There is no closed form: the model spec is traced.
    """

    version = 2  # rates of zero are zero, whatever the architecture's own default is

    class Options(Transformable.Options):
        arch: str = Field(pattern=r"^[a-zA-Z0-9_.]+$", description="a name of timm.list_models(), such as resnet26")
        dropout: float = Field(ge=0, lt=1, description="timm's drop_rate")
        drop_path: float = Field(ge=0, lt=1, description="timm's drop_path_rate")

    options: Options

    @property
    def where(self) -> str:
        return f"model.arch={self.options.arch}"

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.lazy_timm import timm

        library = timm()
        o = self.options
        where = self.where
        if not library.is_model(o.arch):
            refuse(where, "timm has no such network", did_you_mean(o.arch, library.list_models()))
        size: dict[str, Any] = {}
        config = timm("timm.models").get_pretrained_cfg(o.arch)
        if config is not None and config.fixed_input_size:
            size["img_size"] = data.shape[1:]
        # A rate of zero is said too: some networks have another one of their own (Swin drops a tenth of its paths).
        rates = {"drop_rate": o.dropout, "drop_path_rate": o.drop_path}
        try:
            while True:
                try:
                    return library.create_model(
                        o.arch, in_chans=data.shape[0], num_classes=data.classes, **size, **rates
                    )
                except TypeError as error:  # it does not know a rate, and so has none
                    unknown = next((key for key, rate in rates.items() if not rate and f"'{key}'" in str(error)), None)
                    if unknown is None:
                        raise
                    del rates[unknown]
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            refuse(where, f"timm cannot make it for {data.name}: {reason[:60]}", "choose another network or image size")
