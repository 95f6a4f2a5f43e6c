"""Results as the console shows them: filters in a form, a chart for each question, exports by a link."""
