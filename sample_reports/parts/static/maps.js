// Unpacks the maps of a page and paints them. The rule is that of audit/report/images.py.
"use strict";

// Reads the page's data: layers in the model's order, and per role a peak and a map for each of them,
// as heats of 0 to 255. How they are packed is said in audit/report/maps.py.
async function readMaps(data) {
  const table = JSON.parse(new TextDecoder().decode(await unpack(LAYERS)));
  const layers = table.map(([name, kind, stage, height, width, ownHeight, ownWidth, steps]) => (
    { name, kind, stage, height, width, ownHeight, ownWidth, steps }));
  const packed = await unpack(data.maps);
  const view = new DataView(packed.buffer);
  const roles = {};
  const peakBytes = 4 * layers.length;
  const pixels = (list) => list.reduce((sum, layer) => sum + layer.height * layer.width, 0);
  const inHalves = pixels(layers.filter((layer) => layer.steps === 15));
  const whole = pixels(layers) - inHalves;
  let next = data.roles.length * peakBytes;
  data.roles.forEach((role, row) => {
    const maps = [];
    const bytes = new Uint8Array(inHalves + whole);
    for (let n = 0; n < inHalves; n += 1) bytes[n] = (packed[next + (n >> 1)] >> (n % 2 ? 4 : 0)) & 15;
    next += Math.ceil(inHalves / 2);
    bytes.set(packed.subarray(next, next + whole), inHalves);
    next += whole;
    let start = 0;
    layers.forEach((layer, n) => {
      const end = start + layer.height * layer.width;
      maps.push({
        peak: view.getFloat32(row * peakBytes + 4 * n, true),
        values: Float32Array.from(addUp(bytes, start, layer, layers[n - 1]), (step) => (step * 255) / layer.steps),
        height: layer.height,
        width: layer.width,
      });
      start = end;
    });
    roles[role] = maps;
  });
  return { layers, roles };
}

// Turns the differences of one map into steps, in place. The map before it holds its steps already.
function addUp(bytes, start, layer, before) {
  const { height, width, steps } = layer;
  const map = bytes.subarray(start, start + height * width);
  for (let n = 1; n < map.length; n += 1) map[n] = (map[n] + map[n % width ? n - 1 : n - width]) & steps;
  if (before && before.height === height && before.width === width && before.steps === steps) {
    const last = bytes.subarray(start - map.length, start);
    for (let n = 0; n < map.length; n += 1) map[n] = (map[n] + last[n]) & steps;
  }
  return map;
}

// The share of the layer's scale that this map reaches: its peak by the larger peak of all roles.
function shareOfScale(maps, role, layer) {
  const largest = Math.max(...Object.values(maps.roles).map((list) => list[layer].peak));
  return largest > 0 ? maps.roles[role][layer].peak / largest : 0;
}

// Enlarges a map bilinearly, pixel centres aligned as OpenCV does. Gives heats of 0 to 255.
function enlarge(map, share, height, width) {
  const heat = new Uint8Array(height * width);
  const columns = Array.from({ length: width }, (_, x) => position(x, map.width, width));
  for (let y = 0; y < height; y += 1) {
    const [top, bottom, down] = position(y, map.height, height);
    for (let x = 0; x < width; x += 1) {
      const [left, right, across] = columns[x];
      const above = map.values[top * map.width + left] * (1 - across) + map.values[top * map.width + right] * across;
      const below = map.values[bottom * map.width + left] * (1 - across) + map.values[bottom * map.width + right] * across;
      heat[y * width + x] = Math.round((above * (1 - down) + below * down) * share);
    }
  }
  return heat;
}

function position(pixel, small, large) {
  const exact = Math.min(Math.max(((pixel + 0.5) * small) / large - 0.5, 0), small - 1);
  const low = Math.floor(exact);
  return [low, Math.min(low + 1, small - 1), exact - low];
}

// Paints heats; hot places cover the picture by `opacity`, cold ones leave it as it is.
function paintHeat(canvas, heat, height, width, colours, opacity) {
  const image = new ImageData(width, height);
  const table = COLOURS[colours];
  for (let n = 0; n < heat.length; n += 1) {
    const value = heat[n];
    image.data[4 * n] = table[3 * value];
    image.data[4 * n + 1] = table[3 * value + 1];
    image.data[4 * n + 2] = table[3 * value + 2];
    image.data[4 * n + 3] = Math.round(ALPHA[value] * opacity);
  }
  put(canvas, image);
}

// Paints a map alone at its own size, opaque.
function paintMap(canvas, map, share, colours) {
  const image = new ImageData(map.width, map.height);
  const table = COLOURS[colours];
  for (let n = 0; n < map.values.length; n += 1) {
    const value = Math.round(map.values[n] * share);
    image.data[4 * n] = table[3 * value];
    image.data[4 * n + 1] = table[3 * value + 1];
    image.data[4 * n + 2] = table[3 * value + 2];
    image.data[4 * n + 3] = 255;
  }
  put(canvas, image);
}

// Covers all pixels below a share of the map's own peak. Gives the share that stays to be seen.
function paintMask(canvas, heat, height, width, threshold) {
  const image = new ImageData(width, height);
  let seen = 0;
  for (let n = 0; n < heat.length; n += 1) {
    if (heat[n] >= threshold * 255) seen += 1;
    else image.data[4 * n + 3] = 235;
  }
  put(canvas, image);
  return seen / heat.length;
}

function put(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
}
