"""Whether another sound file begins behind one, as where two were joined."""

import re

from aumcli.data.decoding.containers.region import Region

LONGEST_BEGINNING = 12
_BEGINNING = re.compile(
    rb"fLaC[\x00\x80]\x00\x00\x22|OggS\x00[\x02\x06]|(?:RIFF|RIFX|RF64|BW64)....WAVE|FORM....AIF[FC]|caff\x00\x01\x00\x00"
    rb"|riff\x2e\x91\xcf\x11|\.snd\x00\x00|NIST_1A\n",
    re.DOTALL,
)


def another_begins(region: Region, at: int) -> bool:
    """Whether anywhere from `at` on stand the first bytes of a sound file other than MPEG's, which have no mark."""
    return any(_BEGINNING.search(block) for _, block in region.blocks(at, overlap=LONGEST_BEGINNING))
