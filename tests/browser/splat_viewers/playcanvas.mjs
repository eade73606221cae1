// The PlayCanvas engine, which SuperSplat is made of, as it comes.
import * as pc from "playcanvas";

export async function open(canvas, file) {
  const app = new pc.Application(canvas, { graphicsDeviceOptions: { antialias: false, preserveDrawingBuffer: true } });
  app.setCanvasFillMode(pc.FILLMODE_NONE, canvas.width, canvas.height);
  app.setCanvasResolution(pc.RESOLUTION_FIXED, canvas.width, canvas.height);
  app.start();
  const asset = await loaded(app, file);
  return (view) => picture(app, asset, view);
}

function loaded(app, file) {
  const isGltf = file.endsWith(".glb");
  return new Promise((resolve, reject) => {
    const asset = new pc.Asset(file, isGltf ? "container" : "gsplat", { url: file, filename: file });
    asset.on("load", () => resolve(isGltf ? asset.resource.gsplats[0] : asset));
    asset.on("error", (error) => reject(new Error(error)));
    app.assets.add(asset);
    app.assets.load(asset);
  });
}

// A new camera and a new entity for each picture: the first frame that is ready is then sorted for this view.
async function picture(app, asset, { eye, turn, fov, background }) {
  const camera = new pc.Entity();
  camera.addComponent("camera", { fov, nearClip: 0.1, farClip: 100, clearColor: new pc.Color(...background) });
  camera.setPosition(...eye);
  camera.lookAt(0, 0, 0);
  const splat = new pc.Entity();
  splat.setLocalEulerAngles(...turn);
  splat.addComponent("gsplat", { asset, unified: true });
  app.root.addChild(camera);
  app.root.addChild(splat);
  await sorted(app, camera);
  const png = app.graphicsDevice.canvas.toDataURL();
  camera.destroy();
  splat.destroy();
  return png;
}

function sorted(app, camera) {
  return new Promise((resolve) => {
    let ready = false;
    const hear = app.systems.gsplat.on("frame:ready", (whose, layer, now) => {
      ready = now && whose === camera.camera;
    });
    const end = app.on("frameend", () => {
      if (!ready) return;
      hear.off();
      end.off();
      resolve();
    });
  });
}
