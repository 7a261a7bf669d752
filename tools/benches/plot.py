#!/usr/bin/env python3
"""plot.py TITLE FIGURE < results.json > picture.svg: bars of one figure, a bar for each subject, from the least to the
most that was measured; no library needed."""
import html
import json
import sys

WIDTH, BAR, GAP, LEFT, TOP = 720, 26, 12, 190, 54

title, figure = sys.argv[1], sys.argv[2]
results = {subject: figures[figure] for subject, figures in json.load(sys.stdin).items() if figure in figures}
order = sorted(results, key=lambda subject: results[subject]["median"])
top = max(result["most"] for result in results.values()) or 1
scale = (WIDTH - LEFT - 90) / top
height = TOP + len(order) * (BAR + GAP) + 16

print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
      f'font-family="sans-serif" font-size="14">')
print(f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>')
print(f'<text x="16" y="30" font-size="16" font-weight="bold">{html.escape(title)}</text>')
for i, subject in enumerate(order):
    result, y = results[subject], TOP + i * (BAR + GAP)
    middle, colour = y + BAR / 2, "#1b7f5c" if subject.startswith("cmig") else "#9aa5b1"
    print(f'<text x="{LEFT - 10}" y="{middle + 5}" text-anchor="end">{html.escape(subject)}</text>')
    print(f'<rect x="{LEFT}" y="{y}" width="{max(result["median"] * scale, 1):.1f}" height="{BAR}" fill="{colour}"/>')
    print(f'<path d="M{LEFT + result["least"] * scale:.1f} {middle} H{LEFT + result["most"] * scale:.1f}" stroke="#222"/>')
    print(f'<text x="{LEFT + result["most"] * scale + 8:.1f}" y="{middle + 5}">{result["median"]:.4g}</text>')
print("</svg>")
