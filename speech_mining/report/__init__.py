"""The report: the whole lake in one HTML file that needs no network, with pairs to listen to.

What belongs here is showing. Figures are counted in `speech_mining.quality`; judging is `speech_mining.listening`.
"""

from speech_mining.report.page import report_html
from speech_mining.report.samples import ReportPlan

__all__ = ["ReportPlan", "report_html"]
