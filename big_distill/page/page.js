// Shows the values under a pointer; everything else on the page needs no script.
'use strict';
for (const svg of document.querySelectorAll('svg[data-points]')) {
  const series = JSON.parse(svg.dataset.points);
  const figure = svg.parentElement;
  const tip = figure.appendChild(document.createElement('div'));
  tip.className = 'tip';
  tip.hidden = true;
  const cursor = document.createElementNS('http://www.w3.org/2000/svg', 'line');
  cursor.setAttribute('class', 'cursor');
  const {width, height} = svg.viewBox.baseVal;

  const hide = () => { tip.hidden = true; cursor.remove(); };
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * width;
    const near = series.map(({p}) => p.reduce((best, point) =>
        Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
    if (!near.length) return;
    const at = near.reduce((best, point) =>
        Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best);
    for (const [name, value] of [['x1', at[0]], ['x2', at[0]], ['y1', 10],
                                 ['y2', height - 34]]) {
      cursor.setAttribute(name, value);
    }
    svg.append(cursor);
    // A series whose nearest point is elsewhere has no value here.
    const told = near.map((point, i) => [series[i].n, point])
        .filter(([, point]) => Math.abs(point[0] - at[0]) < 4);
    tip.replaceChildren(`${svg.dataset.x} ${at[2]}`, ...told.flatMap(
        ([name, point]) => [document.createElement('br'),
                            `${name}: ${point[3]}`]));
    tip.hidden = false;
    const frame = figure.getBoundingClientRect();
    const left = at[0] / width * box.width + box.left - frame.left;
    tip.style.left = `${Math.max(0, Math.min(
        left + 10, frame.width - tip.offsetWidth))}px`;
    tip.style.top = `${box.top - frame.top + 12}px`;
  };
  svg.addEventListener('pointermove', show);
  svg.addEventListener('pointerdown', show);
  svg.addEventListener('pointerleave', hide);
}
