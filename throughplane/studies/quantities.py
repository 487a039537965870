"""What measures are called for people, and which way is better."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Quantity:
    """A kind of measure.

    Attributes:
        label: with its unit.
        better: which way; None where neither is, or where it depends on something else.
        digits: after the point; None for three significant ones.
        scale: from the recorded unit to that of the label.
    """

    label: str
    better: Better | None = None
    digits: int | None = None
    scale: float = 1.0

    def text(self, value: float) -> str:
        """A value in the unit of the label."""
        shown = value * self.scale
        text = f"{shown:.3g}" if self.digits is None else f"{shown:.{self.digits}f}"
        return f"{float(text):g}" if "e+" in text else text


@dataclass(frozen=True)
class Measure:
    """A measure by its name in the records: quantity_unit/mask/data range, as far as they apply.

    Attributes:
        name: as recorded.
        quantity: what it is; the plain name where nothing more is known.
        where: mask and data range, in the words of the records.
    """

    name: str
    quantity: Quantity
    where: tuple[str, ...]

    @property
    def label(self) -> str:
        """For the head of a column."""
        return f"{self.quantity.label} ({', '.join(self.where)})" if self.where else self.quantity.label

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}", None: ""}[self.quantity.better]


KNOWN = MappingProxyType(
    {
        "psnr_db": Quantity("PSNR, dB", "higher", 2),
        "ssim": Quantity("SSIM", "higher", 3),
        "haarpsi": Quantity("HaarPSI", "higher", 3),
        "gradient_distance": Quantity("gradient distance", "lower", 3),
        "gradient_distance_through_plane": Quantity("gradient distance along slices' normal", "lower", 3),
        "residual": Quantity("W x \N{MINUS SIGN} y over y"),  # below the noise, less is not better
        "residual_to_noise": Quantity("W x \N{MINUS SIGN} y over noise", None, 2),
        "residual_of_truth": Quantity("W x \N{MINUS SIGN} y over y, of the truth"),
        "transfer_half_per_mm": Quantity("transfer above half up to, 1/mm", "higher", 3),
        "ring_correlation_half_per_mm": Quantity("correlation above half up to, 1/mm", "higher", 3),
        "log_spectral_distance_db": Quantity("spectral distance beyond the scan's, dB", "lower", 2),
        "effective_fwhm_mm": Quantity("effective FWHM, mm", None, 2),
        "dice_mean": Quantity("mean Dice of tissues", "higher", 3),
        "dice_dark": Quantity("Dice, dark tissue", "higher", 3),
        "dice_middle": Quantity("Dice, middle tissue", "higher", 3),
        "dice_bright": Quantity("Dice, bright tissue", "higher", 3),
        "lesions_kept_ratio": Quantity("share of lesions kept", "higher", 2),
        "lesions_visible_count": Quantity("lesions visible in the truth", None, 0),
        "false_spots_per_litre": Quantity("false spots per litre", "lower"),
        "seconds": Quantity("seconds", "lower"),
        "peak_memory_bytes": Quantity("peak memory, GiB", "lower", 2, 2.0**-30),
    }
)
ORDER = tuple(KNOWN)
COST = ("seconds", "peak_memory_bytes")


def measure_named(name: str) -> Measure:
    """Of a name in the records; a quantity that is not known goes by its own name, and neither way is better."""
    quantity, *where = name.split("/")
    return Measure(name, KNOWN.get(quantity, Quantity(quantity.replace("_", " "))), tuple(where))


def in_reading_order(names: set[str], primary: str) -> tuple[Measure, ...]:
    """The primary measure, those of its mask, the others; known quantities before unknown ones."""
    mask = primary.split("/")[1:2]

    def key(name: str) -> tuple[bool, bool, bool, int, str]:
        quantity, *where = name.split("/")
        known = ORDER.index(quantity) if quantity in KNOWN else len(ORDER)
        return name != primary, quantity in COST, where[:1] != mask, known, name

    return tuple(measure_named(name) for name in sorted(names, key=key))
