// Spark, a renderer for three.js.
import { SparkRenderer, SplatMesh } from "@sparkjsdev/spark";
import * as THREE from "three";

export async function open(canvas, file) {
  const renderer = new THREE.WebGLRenderer({ canvas, antialias: false, preserveDrawingBuffer: true });
  renderer.setSize(canvas.width, canvas.height);
  const scene = new THREE.Scene();
  const spark = new SparkRenderer({
    renderer,
    autoUpdate: false,
    accumExtSplats: true, // half floats instead of bytes where splats of a scene come together
    sortRadial: false,
    preBlurAmount: 0.3, // square pixels, without a change of opacity
    blurAmount: 0,
    maxStdDev: 3.4,
    minAlpha: 1 / 255,
  });
  const splat = new SplatMesh({ url: file });
  await splat.initialized;
  scene.add(spark, splat);
  return (view) => picture(renderer, scene, spark, splat, view);
}

async function picture(renderer, scene, spark, splat, { eye, turn, fov, background }) {
  const camera = new THREE.PerspectiveCamera(fov, 1, 0.1, 100);
  camera.position.set(...eye);
  camera.lookAt(0, 0, 0);
  splat.rotation.set(...turn.map(THREE.MathUtils.degToRad), "ZYX");
  scene.updateMatrixWorld();
  camera.updateMatrixWorld();
  scene.background = new THREE.Color().setRGB(...background, THREE.SRGBColorSpace);
  await spark.update({ scene, camera });
  renderer.render(scene, camera);
  return renderer.domElement.toDataURL();
}
