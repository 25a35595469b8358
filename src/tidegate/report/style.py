"""How the page looks, and the few lines that draw its figures."""

CSS = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #566070; --line: #dfe3e9;
  --page: #f6f7f9; --card: #fff; --mark: #1f66b3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #a3adba; --line: #333b46; --page: #12161b; --card: #1a2027; --mark: #7db4ee; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header { max-width: 1120px; margin: 0 auto; padding: 0 16px; }
header { padding-top: 28px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 12px; }
p { margin: 0 0 12px; overflow-wrap: anywhere; }
header p { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px; margin: 16px 0; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 240px), 1fr));
  gap: 10px 24px; margin: 0 0 4px; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.cards { list-style: none; margin: 16px 0 0; padding: 0; display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.cards li { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px; min-width: 0; }
.cards strong { display: block; font-size: 1.55rem; font-variant-numeric: tabular-nums; line-height: 1.3; }
.cards span { display: block; color: var(--soft); font-size: .8rem; }
.cards .name { color: var(--ink); }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.grid > * { min-width: 0; }
figure { margin: 0 0 8px; min-width: 0; }
figcaption { color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
.wide { margin-bottom: 16px; }
.scroll { overflow: auto; max-height: 480px; margin: 8px 0 0; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
.caption { color: var(--soft); font-size: .85rem; margin: 12px 0 0; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; position: sticky; top: 0; background: var(--card); }
tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: 7.5em; }
.why { min-width: 15em; }
.n { text-align: right; white-space: nowrap; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--mark); }
pre { overflow: auto; font-size: .8rem; line-height: 1.45; background: var(--page); border-radius: 6px;
  padding: 12px; margin: 8px 0 0; }
ul.notes { margin: 0; padding-left: 20px; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: .8rem; text-align: center; padding: 8px 16px 28px; }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
"""

SCRIPT = """
const dark = matchMedia("(prefers-color-scheme: dark)");
function theme(layout) {
  const style = getComputedStyle(document.documentElement), get = name => style.getPropertyValue(name).trim();
  const axis = { gridcolor: get("--line"), zerolinecolor: get("--line"), linecolor: get("--line") };
  return { ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: get("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12 },
    hoverlabel: { namelength: -1 }, xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis } };
}
function draw() {
  // Plotly takes what shines through pale cells for white, and writes dark on them.
  const cell = dark.matches ? { textfont: { color: "#fff" } } : { textfont: {} };
  FIGURES.forEach((figure, i) => Plotly.react("figure-" + i,
    figure.data.map(trace => trace.type === "heatmap" ? { ...trace, ...cell } : trace),
    theme(figure.layout), { responsive: true, displayModeBar: false }));
}
draw();
dark.addEventListener("change", draw);
"""
