// Meshes as three.js shows them, without light.
import * as THREE from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { MTLLoader } from "three/addons/loaders/MTLLoader.js";
import { OBJLoader } from "three/addons/loaders/OBJLoader.js";

export async function open(canvas, file) {
  const renderer = new THREE.WebGLRenderer({ canvas, antialias: true, preserveDrawingBuffer: true });
  renderer.setSize(canvas.width, canvas.height);
  const scene = new THREE.Scene();
  scene.add(file.endsWith(".glb") ? (await new GLTFLoader().loadAsync(file)).scene : await obj(file));
  return (view) => picture(renderer, scene, view);
}

// Light is in the colours already: what is not marked as unlit, as OBJ cannot, is shown as if it were.
async function obj(file) {
  const materials = await new MTLLoader().loadAsync(file.replace(".obj", ".mtl"));
  materials.preload();
  const group = await new OBJLoader().setMaterials(materials).loadAsync(file);
  const [mesh] = group.children;
  const { map } = mesh.material;
  while (!map.image?.complete) await new Promise(requestAnimationFrame);
  mesh.material = new THREE.MeshBasicMaterial({ map });
  return group;
}

async function picture(renderer, scene, { eye, fov, background }) {
  const camera = new THREE.PerspectiveCamera(fov, 1, 0.1, 100);
  camera.position.set(...eye);
  camera.lookAt(0, 0, 0);
  scene.background = new THREE.Color().setRGB(...background, THREE.SRGBColorSpace);
  renderer.render(scene, camera);
  return renderer.domElement.toDataURL();
}
