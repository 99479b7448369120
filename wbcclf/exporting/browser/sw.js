// Keeps the page, so that it opens without a network. {{ digest }} is that of the page.
"use strict";

const MINE = `wbcclf ${registration.scope} `; // other pages of the server have caches, too
const NAME = `${MINE}{{ digest }}`;

addEventListener("install", (event) => {
  const files = ["./", "manifest.webmanifest", "icon.svg"];
  event.waitUntil(
    caches
      .open(NAME)
      .then((cache) => cache.addAll(files.map((name) => new Request(name, { cache: "reload" }))))
      .then(() => skipWaiting())
  );
});

addEventListener("activate", (event) => {
  const isOld = (name) => name.startsWith(MINE) && name !== NAME;
  event.waitUntil(
    caches.keys().then((names) => Promise.all(names.filter(isOld).map((name) => caches.delete(name))))
  );
});

addEventListener("fetch", (event) => {
  const page = event.request.mode === "navigate" ? "./" : event.request;
  event.respondWith(
    caches.open(NAME).then((cache) => cache.match(page)).then((kept) => kept ?? fetch(event.request))
  );
});
