"""A page: one HTML file that needs nothing from elsewhere.

Its Content-Security-Policy allows one style sheet and one script, both ours, by their digests, and nothing
else: whatever a text of the data may hold, no browser runs or fetches it.
"""

from __future__ import annotations

from functools import cache

from markupsafe import Markup

from assay.core.digests import sha256_for_policy
from assay.report.figures import TEMPLATES, environment


def rendered_page(template: str, **parts: object) -> bytes:
    """The page that the template makes of these parts, in UTF-8."""
    style, script = _style(), (TEMPLATES / "script.js").read_text()
    policy = (
        f"default-src 'none'; style-src {sha256_for_policy(style)}; script-src {sha256_for_policy(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    rendered = (
        environment()
        .get_template(template)
        .render(style=Markup(style), script=Markup(script), policy=policy, **parts)
    )
    return rendered.encode()


@cache
def _style() -> str:
    return (TEMPLATES / "page.css").read_text() + (TEMPLATES / "figures.css").read_text()
