"""The pictures of the pages in docs/, by Chromium and its driver, from a work folder that has both pages.

python -m pages.screenshots work/demo docs
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from console.command_line import run_command
from console.errors import UserError
from console.options import as_path, command_parser

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SHOTS = {  # file: (page, width, height, what is scrolled to the top)
    "report.png": ("ensembles/default/report.html", 1100, 760, "h1"),
    "report_clips.png": ("ensembles/default/report.html", 1100, 700, "form"),
    "report_phone.png": ("ensembles/default/report.html", 400, 800, "#list"),
    "repair.png": ("label_errors.html", 1100, 700, "h1"),
}


def main() -> None:
    example = "example: python -m pages.screenshots work/demo docs"
    parser = command_parser(__doc__.partition("\n")[0], example, "python -m pages.screenshots")
    for name in ("work", "docs"):
        parser.add_argument(name, type=as_path, metavar=name.upper())
    args = parser.parse_args()
    shoot(args.work, args.docs)


@contextmanager
def chromium() -> Iterator["Chrome"]:
    """Debian's Chromium without a window. Raises UserError where it, its driver or selenium is not there."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        raise UserError("no chromium with its chromedriver: apt install chromium chromium-driver")
    try:
        from selenium import webdriver
    except ImportError:
        raise UserError("selenium is not installed: pip install -c constraints.txt -e '.[dev]'") from None
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for one in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{one}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def shoot(work: Path, docs: Path) -> None:
    """Raises UserError where there is no browser, or a page is missing."""
    with chromium() as browser:
        for name, (page, width, height, top) in SHOTS.items():
            if not (file := work / page).is_file():
                raise UserError(f"{file}: no such page: report.py and find_label_errors.py --open write it")
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(file.resolve().as_uri())
            browser.execute_script(f"document.querySelector({top!r}).scrollIntoView()")
            time.sleep(0.5)  # pictures are decoded after the page is laid out
            browser.save_screenshot(str(docs / name))


if __name__ == "__main__":
    run_command(main)
