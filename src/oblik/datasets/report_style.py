"""How the dataset report looks: one style sheet, light and dark, from a phone's width to a desk's.

In: nothing. Out: CSS. Nothing in it asks anybody for anything: no imports, no addresses, no fonts to load.
"""

STYLE = """
:root{color-scheme:light dark;--paper:#faf8f5;--card:#fff;--ink:#211d19;--soft:#746c63;--line:#e6e0d8;
--train:#2f7d6b;--validation:#c08a2d;--stress:#b4526a;--bar:#ece7df;--shade:0 1px 2px #0000000d,
0 6px 20px #0000000a}
@media(prefers-color-scheme:dark){:root{--paper:#171513;--card:#211e1b;--ink:#efeae4;--soft:#a1978c;
--line:#342f2a;
--train:#5bb8a2;--validation:#e0b160;--stress:#e08aa0;--bar:#2e2925;--shade:0 1px 2px #0004}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 ui-sans-serif,system-ui,-apple-system,
"Segoe UI",
Roboto,"Noto Sans",sans-serif;-webkit-font-smoothing:antialiased}
main{max-width:1120px;margin:0 auto;padding:56px 28px 72px}
h1{font-size:34px;line-height:1.15;letter-spacing:-.02em;margin:0 0 6px;font-weight:650;
overflow-wrap:anywhere}
h2{font-size:20px;letter-spacing:-.01em;margin:56px 0 4px;font-weight:620}
h3{font-size:12.5px;margin:0 0 12px;font-weight:600;color:var(--soft);text-transform:uppercase;
letter-spacing:.06em}
p{margin:0 0 14px}.soft{color:var(--soft)}code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,
monospace}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px 24px;
box-shadow:var(--shade)}
.top{display:grid;grid-template-columns:auto 1fr;gap:36px;align-items:center;margin-top:28px}
.big{font-size:60px;line-height:1;font-weight:660;letter-spacing:-.04em;font-variant-numeric:tabular-nums}
.stack{display:flex;height:14px;border-radius:7px;overflow:hidden;gap:2px;background:var(--bar)}
.stack i{display:block}.legend{display:flex;flex-wrap:wrap;gap:6px 22px;margin:12px 0 0;padding:0;
list-style:none}
.legend b{font-variant-numeric:tabular-nums}
.dot{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:7px}
.train{background:var(--train)}.validation{background:var(--validation)}.stress{background:var(--stress)}
.aside{background:var(--soft);opacity:.55}.refused{background:var(--line)}
.three{display:grid;grid-template-columns:repeat(auto-fit,minmax(270px,1fr));gap:18px;margin-top:16px}
.next{margin:16px 0 0;padding:0;list-style:none;display:grid;gap:10px}
.next li{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--validation);
border-radius:10px;padding:12px 16px}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(124px,1fr));gap:10px;margin-top:16px}
figure{margin:0;position:relative;border-radius:10px;overflow:hidden;background:var(--bar);outline-offset:2px}
figure img{display:block;width:100%;height:100%;aspect-ratio:1;object-fit:cover}
.sheet figcaption{position:absolute;inset:0;padding:9px 10px;background:#14110fe0;color:#f6f2ec;
font-size:11px;
line-height:1.38;opacity:0;transition:opacity .15s;overflow:auto}
.sheet figure:hover figcaption,.sheet figure:focus figcaption{opacity:1}
.sheet small{display:block;margin-top:5px;color:#c9bfb3}
.why{display:grid;grid-template-columns:repeat(auto-fill,minmax(312px,1fr));gap:12px;margin-top:16px}
.why figure{display:grid;grid-template-columns:92px 1fr;background:var(--card);border:1px solid var(--line)}
.why .none{display:grid;place-items:center;height:92px;color:var(--soft);font-size:12px}
.why img,.why .none{width:92px;height:100%;min-height:92px;background:var(--bar)}
.why figcaption{padding:10px 14px;font-size:13px;min-width:0}.why b{display:block;font-weight:600}
.why span{display:block;color:var(--soft);overflow-wrap:anywhere;font-size:12px;margin-top:3px}
footer{margin-top:64px;padding-top:18px;border-top:1px solid var(--line);font-size:12.5px;color:var(--soft)}
footer code{overflow-wrap:anywhere}
@media(max-width:640px){main{padding:32px 16px}.top{grid-template-columns:1fr;gap:18px}}
@media print{.sheet figcaption{display:none}body{background:#fff}}
.eyebrow{font-size:12.5px;letter-spacing:.09em;text-transform:uppercase;color:var(--soft);margin:0 0 10px}
.note{border:1px solid var(--line);border-left:4px solid var(--stress);border-radius:10px;
background:var(--card);padding:12px 16px;margin:22px 0 0;font-size:14px}
nav{display:flex;flex-wrap:wrap;gap:8px;margin:22px 0 0}
nav a{color:var(--soft);text-decoration:none;border:1px solid var(--line);border-radius:999px;
padding:4px 13px;font-size:13px;background:var(--card)}
nav a:hover,nav a:focus{color:var(--ink);border-color:var(--soft)}
.wide{grid-column:1/-1}.chart{display:block;width:100%;height:auto;overflow:visible}
.chart text{font:13px ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
.chart .faint{fill:var(--soft);font-size:11.5px}.chart .axis{stroke:var(--line);stroke-width:1}
.chart .track{fill:var(--bar)}.chart .bar{fill:var(--train)}
.chart .bar.want{fill:none;stroke:var(--validation);stroke-width:1.5;stroke-dasharray:3 3}
.marks{display:grid;grid-template-columns:repeat(5,1fr);text-align:center;font-size:11.5px;
color:var(--soft);margin-top:6px}
.chart circle{stroke:var(--card);stroke-width:1.5}
.chart .train{fill:var(--train)}.chart .validation{fill:var(--validation)}.chart .stress{fill:var(--stress)}
.sheet figure.tall img{aspect-ratio:3/4}.sheet .mark{position:absolute;top:7px;left:7px;background:#14110fc0;
color:#f6f2ec;font-size:10.5px;line-height:1;padding:4px 7px;border-radius:999px}
details{margin-top:14px;border:1px solid var(--line);border-radius:12px;background:var(--card)}
summary{cursor:pointer;padding:12px 16px;font-size:14px;font-weight:560}
.lines{margin:0;padding:0 16px 10px;list-style:none;font-size:13.5px}
.lines li{padding:9px 0;border-top:1px solid var(--line);overflow-wrap:anywhere}
.lines b{font-weight:600;font-size:12.5px;color:var(--soft);display:block}
.tag{display:inline-block;font-size:11.5px;border:1px solid currentColor;border-radius:999px;padding:0 8px;
color:var(--validation);margin-left:6px}
.groups{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:14px;margin-top:16px}
.group{padding:14px}.moment{display:flex;gap:8px;flex-wrap:wrap}.moment figure{width:84px;background:none;
overflow:visible}
.moment img{border-radius:9px;width:84px;height:84px;object-fit:cover;background:var(--bar)}
.moment .won img{outline:3px solid var(--train);outline-offset:1px}
.moment figcaption{font-size:11px;line-height:1.3;color:var(--soft);margin-top:6px;overflow-wrap:anywhere}
.moment figcaption span{display:block}
.moment .won figcaption{color:var(--ink);font-weight:600}
a{color:inherit}
@media(max-width:640px){h1{font-size:28px}h2{margin-top:44px}.big{font-size:48px}.card{padding:18px}
.sheet{grid-template-columns:repeat(auto-fill,minmax(98px,1fr))}.why,.groups{grid-template-columns:1fr}
.three{grid-template-columns:1fr}}
"""
