"""What axe finds wrong with a page, and what runs over its margin, wide and narrow, light and dark."""

from axe_playwright_python.sync_playwright import Axe

WIDTHS = (360, 1_600)


def assert_accessible(page, address: str) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(address)
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (address, width)
