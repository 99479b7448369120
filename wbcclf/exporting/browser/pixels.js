// What is done to pixels: the square around the white cell, proposed and cut out.
//
// A picture is {data, width, height}, as a canvas gives it: RGBA, 0-255. A square is
// {left, top, side} in pixels of the picture; it may reach beyond the border.

const BLACK = 16; // darker in all channels is no stain but the edge of a turned picture
const FAINTEST = 0.1; // density: less than a tenth of the light taken away is not a stain
const SLOPE = 1.8; // green over blue density of red cells until some are seen
const GREY = 230; // what the empty background becomes
const [LEAST, MOST] = [5000, 40000]; // pixels, evenly spaced, that give light and stain
const RADIUS = 15; // pixels of a nucleus: as many show its outline well
const FEWEST = 4; // pixels of its radius: smaller ones show no shape
// In radii of a typical red cell, or in its area. A nucleus is 1.3 times as wide.
const NUCLEUS = 1.3;
const GAP = 0.7; // between lobes of one nucleus
const SMALLEST_LOBE = 0.045; // area; what is smaller is a platelet or dirt
const SMALLEST_NUCLEUS = 0.25; // area of a nucleus in that of the largest one

function quantile(values, share) {
  return values.sort()[Math.floor(share * (values.length - 1))];
}

/** Return pixels of a picture, evenly spaced and none black, as [red, green, blue] arrays. */
function sample({ data, width, height }) {
  const wanted = Math.min(Math.max((width * height) / 16, LEAST), MOST);
  const step = Math.max(1, Math.round(Math.sqrt((width * height) / wanted)));
  const channels = [[], [], []];
  for (let y = 0; y < height; y += step) {
    for (let x = 0; x < width; x += step) {
      const at = 4 * (y * width + x);
      if (Math.max(data[at], data[at + 1], data[at + 2]) > BLACK) {
        channels.forEach((channel, number) => channel.push(data[at + number]));
      }
    }
  }
  return channels.map((channel) => Uint8Array.from(channel));
}

/** Return the light [red, green, blue] of the empty background: what the brightest tenth shows. */
function readLight(channels) {
  const green = channels[1].slice();
  const lowest = quantile(green, 0.88);
  const highest = quantile(green, 0.98);
  return channels.map((channel) =>
    quantile(channel.filter((_, n) => channels[1][n] >= lowest && channels[1][n] <= highest), 0.5)
  );
}

/** Return the optical density of all bytes under a light. */
function densities(light) {
  return Float32Array.from({ length: 256 }, (_, value) => Math.log((light + 1) / (value + 1)));
}

/** Return the mean of what is above half of this mean (Ridler and Calvard 1978). */
function level(values, start) {
  if (!values.length) return 0;
  let mean = quantile(values, start); // this sorts the values
  for (let round = 0; round < 20; round += 1) {
    let [sum, count] = [0, 0];
    for (let n = values.length - 1; n >= 0 && values[n] > mean / 2; n -= 1, count += 1) {
      sum += values[n];
    }
    if (!count) return 0;
    const last = mean;
    mean = sum / count;
    if (Math.abs(mean - last) < 0.001) break;
  }
  return mean;
}

/**
 * Return how a picture is stained: {tables, slope, nucleus}, or null if no nucleus can be in it.
 *
 * A nucleus takes away much more green light than blue light, a red cell both alike. So
 * `green - slope * blue` density is 0 in red cells. The slope is read from the red cells.
 */
function readStain(channels, light) {
  const tables = light.map(densities);
  const [red, green, blue] = channels.map((channel, number) =>
    Float32Array.from(channel, (value) => tables[number][value])
  );
  const dye = (slope) => green.map((value, n) => value - slope * blue[n]);
  let slope = SLOPE;
  for (let round = 0; round < 3; round += 1) {
    const dyed = dye(slope);
    const nucleus = level(dyed.slice(), 0.999);
    // What is stained without the dye is red cells. Blue cytoplasm takes away more red light.
    const isRed = (n) => green[n] > FAINTEST && red[n] < green[n] && dyed[n] < nucleus / 4;
    const others = green.filter((_, n) => isRed(n));
    if (others.length < 0.02 * green.length) break;
    const dense = level(others, 0.5) / 2;
    const ratios = blue
      .map((value, n) => (isRed(n) && green[n] > dense ? value / green[n] : -1))
      .filter((value) => value >= 0);
    slope = 1 / Math.min(Math.max(quantile(ratios, 0.5), 0.4), 1);
  }
  const nucleus = level(dye(slope), 0.999);
  return nucleus < 2 * FAINTEST ? null : { tables, slope, nucleus };
}

/** Return a picture with the means of blocks of pixels, or blurred by a pixel if these are 1x1. */
function shrunk({ data, width, height }, factor) {
  const weights = factor === 1 ? [1, 4, 6, 4, 1] : Array(factor).fill(1);
  const reach = factor === 1 ? 2 : 0;
  const total = weights.reduce((sum, weight) => sum + weight) ** 2;
  const places = (length) =>
    Array.from({ length: Math.floor(length / factor) }, (_, n) =>
      weights.map((_, k) => Math.min(Math.max(n * factor + k - reach, 0), length - 1))
    );
  const [across, down] = [places(width), places(height)];
  const out = new Uint8ClampedArray(4 * across.length * down.length);
  const line = new Float64Array(4 * width); // of all rows that one row of the result is made of
  down.forEach((rows, y) => {
    line.fill(0);
    rows.forEach((row, k) => {
      const start = 4 * width * row;
      for (let n = 0; n < line.length; n += 1) line[n] += weights[k] * data[start + n];
    });
    across.forEach((columns, x) => {
      for (let c = 0; c < 3; c += 1) {
        let sum = 0;
        for (let k = 0; k < weights.length; k += 1) sum += weights[k] * line[4 * columns[k] + c];
        out[4 * (y * across.length + x) + c] = sum / total;
      }
    });
  });
  return { data: out, width: across.length, height: down.length };
}

/** Return where a picture has as much dye as nuclei have: 1, else 0; single pixels are left out. */
function dyed({ data, width, height }, { tables, slope, nucleus }) {
  const mask = new Uint8Array(width * height);
  for (let n = 0; n < mask.length; n += 1) {
    const [green, blue] = [data[4 * n + 1], data[4 * n + 2]];
    const isBlack = Math.max(data[4 * n], green, blue) <= BLACK;
    mask[n] = tables[1][green] - slope * tables[2][blue] > nucleus / 2 && !isBlack ? 1 : 0;
  }
  const cross = (from, isEnough) => {
    const to = new Uint8Array(from.length);
    for (let y = 1; y < height - 1; y += 1) {
      for (let n = y * width + 1; n < (y + 1) * width - 1; n += 1) {
        const sum = from[n] + from[n - 1] + from[n + 1] + from[n - width] + from[n + width];
        to[n] = isEnough(sum) ? 1 : 0;
      }
    }
    return to;
  };
  return cross(cross(mask, (sum) => sum === 5), (sum) => sum > 0);
}

/** Return the number of the part that each pixel of a mask is in, from 1, and the parts' areas. */
function components(mask, width) {
  const parts = new Int32Array(mask.length);
  const areas = [0];
  for (let start = 0; start < mask.length; start += 1) {
    if (!mask[start] || parts[start]) continue;
    const part = areas.push(0) - 1;
    const open = [start];
    parts[start] = part;
    while (open.length) {
      const n = open.pop();
      areas[part] += 1;
      const x = n % width;
      for (let dx = x ? -1 : 0; dx <= (x < width - 1 ? 1 : 0); dx += 1) {
        for (const next of [n + dx - width, n + dx, n + dx + width]) {
          if (mask[next] && !parts[next]) {
            parts[next] = part;
            open.push(next);
          }
        }
      }
    }
  }
  return { parts, areas };
}

/** Return a mask with all pixels that are at most `reach` from one of it. */
function grown(mask, width, reach) {
  const out = mask.slice();
  const height = mask.length / width;
  const span = Math.floor(reach);
  for (let n = 0; n < mask.length; n += 1) {
    if (!mask[n]) continue;
    const [x, y] = [n % width, Math.floor(n / width)];
    for (let dy = -Math.min(span, y); dy <= Math.min(span, height - 1 - y); dy += 1) {
      const wide = Math.floor(Math.sqrt(reach * reach - dy * dy));
      const row = (y + dy) * width;
      out.fill(1, row + Math.max(x - wide, 0), row + Math.min(x + wide, width - 1) + 1);
    }
  }
  return out;
}

/** Return the nuclei in a mask of dye: [{x, y, area}]. Near lobes are one nucleus. */
function groupLobes(mask, width, { parts, areas }, unit) {
  const smallest = SMALLEST_LOBE * Math.PI * unit * unit;
  const lobes = mask.map((value, n) => (areas[parts[n]] >= smallest ? value : 0));
  const groups = components(grown(lobes, width, (GAP * unit) / 2), width);
  const nuclei = groups.areas.map(() => ({ x: 0, y: 0, area: 0 }));
  for (let n = 0; n < lobes.length; n += 1) {
    if (!lobes[n]) continue;
    const nucleus = nuclei[groups.parts[n]];
    nucleus.area += 1;
    nucleus.x += n % width;
    nucleus.y += Math.floor(n / width);
  }
  return nuclei.slice(1).map(({ x, y, area }) => ({ x: x / area, y: y / area, area }));
}

/** Return the nuclei of a picture: [{x, y, area}] in its pixels. */
function findNuclei(picture, stain) {
  const radiusOf = (areas) => Math.sqrt(Math.max(0, ...areas) / Math.PI);
  // A coarse look tells how large the nuclei are, and so what resolution they need.
  const coarse = Math.max(4, Math.ceil(Math.max(picture.width, picture.height) / 512));
  const small = shrunk(picture, coarse);
  const first = coarse * radiusOf(components(dyed(small, stain), small.width).areas);
  const factor = Math.max(1, 2 ** Math.floor(Math.log2(Math.max(first, 1) / RADIUS)));
  const seen = shrunk(picture, factor);
  const mask = dyed(seen, stain);
  const found = components(mask, seen.width);
  if (radiusOf(found.areas) < FEWEST) return [];
  // The scale is not known: all that is dyed may be lobes of one nucleus. If they are too far
  // apart for that, it is the largest of the groups.
  let nuclei = [];
  let area = found.areas.reduce((sum, each) => sum + each);
  for (let round = 0; round < 5; round += 1) {
    const last = area;
    nuclei = groupLobes(mask, seen.width, found, Math.sqrt(area / Math.PI) / NUCLEUS);
    area = Math.max(...found.areas, ...nuclei.map((nucleus) => nucleus.area));
    if (area === last) break;
  }
  const whole = nuclei.filter((nucleus) => nucleus.area >= SMALLEST_NUCLEUS * area);
  return whole.map(({ x, y, area: pixels }) => ({
    x: (x + 0.5) * factor - 0.5,
    y: (y + 0.5) * factor - 0.5,
    area: pixels * factor * factor,
  }));
}

/**
 * Propose the square around the white cell: {square, light, found}.
 *
 * It is that of the nucleus nearest the centre, or of the largest one, and so many nucleus
 * diameters wide as `crop` says. Without a nucleus it is the central square.
 */
function proposeSquare(picture, crop) {
  const channels = sample(picture);
  if (!channels[1].length) return { ...central(picture), light: [0, 0, 0], found: false };
  const light = readLight(channels);
  const stain = readStain(channels, light);
  const nuclei = stain ? findNuclei(picture, stain) : [];
  if (!nuclei.length) return { ...central(picture), light, found: false };
  const [middleX, middleY] = [(picture.width - 1) / 2, (picture.height - 1) / 2];
  const rank = ({ x, y, area }) =>
    crop.which === "largest" ? -area : Math.hypot(x - middleX, y - middleY);
  const nucleus = nuclei.reduce((best, each) => (rank(each) < rank(best) ? each : best));
  const diameter = 2 * Math.sqrt(nucleus.area / Math.PI);
  const wide = crop.scale === "nucleus" ? Math.round(crop.factor * diameter) : crop.scale;
  const side = Math.max(1, wide);
  const start = (centre) => Math.round(centre - (side - 1) / 2);
  return { square: { left: start(nucleus.x), top: start(nucleus.y), side }, light, found: true };
}

/** Return the central square of a picture: {square}. */
function central({ width, height }) {
  const side = Math.min(width, height);
  const start = (length) => Math.floor((length - side) / 2);
  return { square: { left: start(width), top: start(height), side } };
}

/** Return, for each pixel of a side, what it takes from which pixels of another: [[from, part]]. */
function shares(from, to) {
  const scale = from / to;
  return Array.from({ length: to }, (_, n) => {
    if (scale <= 1) {
      const place = Math.min(Math.max((n + 0.5) * scale - 0.5, 0), from - 1);
      const low = Math.min(Math.floor(place), from - 1);
      const high = Math.min(low + 1, from - 1);
      return [[low, 1 - place + low], [high, place - low]];
    }
    const [start, stop] = [n * scale, Math.min((n + 1) * scale, from)];
    const parts = [];
    for (let k = Math.floor(start); k < stop; k += 1) {
      parts.push([k, (Math.min(k + 1, stop) - Math.max(k, start)) / (stop - start)]);
    }
    return parts;
  });
}

/**
 * Return a square of a picture as RGB bytes (size, size, 3).
 *
 * Averaged where it shrinks, else interpolated. Beyond the border it shows the mirror image. With
 * a light, the empty background becomes grey, by one factor a channel.
 */
function cutSquare({ data, width, height }, { left, top, side }, size, light) {
  const mirrored = (place, length) => {
    const turn = ((place % (2 * length)) + 2 * length) % (2 * length);
    return turn < length ? turn : 2 * length - 1 - turn;
  };
  const parts = shares(side, size);
  const columns = Int32Array.from({ length: side }, (_, x) => 4 * mirrored(left + x, width));
  const rows = new Float32Array(side * size * 3); // shrunk across, not yet down
  for (let y = 0; y < side; y += 1) {
    const row = 4 * width * mirrored(top + y, height);
    parts.forEach((part, x) => {
      for (const [from, share] of part) {
        const at = row + columns[from];
        for (let c = 0; c < 3; c += 1) rows[3 * (y * size + x) + c] += share * data[at + c];
      }
    });
  }
  const factors = light ? light.map((value) => GREY / Math.max(value, 1)) : [1, 1, 1];
  const out = new Uint8Array(size * size * 3);
  const line = new Float32Array(size * 3);
  parts.forEach((part, y) => {
    line.fill(0);
    for (const [from, share] of part) {
      const at = from * size * 3;
      for (let n = 0; n < line.length; n += 1) line[n] += share * rows[at + n];
    }
    for (let n = 0; n < line.length; n += 1) {
      out[y * line.length + n] = Math.min(Math.round(Math.round(line[n]) * factors[n % 3]), 255);
    }
  });
  return out;
}
