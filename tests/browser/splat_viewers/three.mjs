// The splats of three.js itself.
import * as THREE from "three/webgpu";
import { GLTFGaussianSplatLoaderExtension } from "three/addons/loaders/GLTFGaussianSplatLoaderExtension.js";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { GaussianSplatPLYLoader } from "three/addons/loaders/GaussianSplatPLYLoader.js";
import { SPLATLoader } from "three/addons/loaders/SPLATLoader.js";
import { SPZLoader } from "three/addons/loaders/SPZLoader.js";
import { GaussianSplat } from "three/addons/objects/GaussianSplat.js";

const LOADERS = { ply: GaussianSplatPLYLoader, splat: SPLATLoader, spz: SPZLoader };

export async function open(canvas, file) {
  const renderer = new THREE.WebGPURenderer({ canvas, forceWebGL: true, antialias: false });
  renderer.setSize(canvas.width, canvas.height);
  renderer.outputColorSpace = THREE.LinearSRGBColorSpace; // colours are blended as they are on the screen
  await renderer.init();
  const splat = await loaded(file);
  return (view) => picture(renderer, splat, view);
}

async function loaded(file) {
  const extension = file.split(".").pop();
  if (extension in LOADERS) return new GaussianSplat(await new LOADERS[extension]().loadAsync(file));
  const loader = new GLTFLoader().register((parser) => new GLTFGaussianSplatLoaderExtension(parser));
  return (await loader.loadAsync(file)).scene;
}

async function picture(renderer, splat, { eye, turn, fov, background }) {
  const scene = new THREE.Scene();
  scene.background = new THREE.Color(...background);
  scene.add(splat);
  splat.rotation.set(...turn.map(THREE.MathUtils.degToRad), "ZYX");
  const camera = new THREE.PerspectiveCamera(fov, 1, 0.1, 100);
  camera.position.set(...eye);
  camera.lookAt(0, 0, 0);
  renderer.render(scene, camera);
  return renderer.domElement.toDataURL();
}
