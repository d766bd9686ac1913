"""Where nbgrader finds the course, and what it makes of it: read by `autograder` and by nbgrader itself."""

import os
import sys
from pathlib import Path

from bleach.sanitizer import ALLOWED_ATTRIBUTES, ALLOWED_TAGS

c = get_config()

c.CourseDirectory.course_id = "vit"
c.CourseDirectory.source_directory = "_build/source"  # made from solutions/ by `autograder release`
c.CourseDirectory.release_directory = "assignments"

c.ClearSolutions.code_stub = {"python": "# Your code here\nraise NotImplementedError"}

# nbgrader starts `alembic` by name: find it also where the virtual environment is not activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

# Notebooks come from students: what feedback pages and the formgrader show may not run scripts.
c.HTMLExporter.sanitize_html = True
c.SanitizeHTML.tags = sorted(
    ALLOWED_TAGS
    | {"p", "br", "hr", "div", "span", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "img", "details", "summary"}
    | {"table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "sub", "sup"}
)
c.SanitizeHTML.attributes = {
    **ALLOWED_ATTRIBUTES,
    "img": ["src", "alt", "width", "height"],
    "td": ["colspan"],
}
