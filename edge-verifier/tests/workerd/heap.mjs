// The memory of one Worker, by the debugger's protocol.

/**
 * What a Worker holds after its garbage was collected.
 * @param {string} inspector where the protocol is spoken
 * @param {string} worker its name
 * @returns {Promise<number>} bytes: its objects and its buffers
 */
export async function heapOf(inspector, worker) {
  const targets = await (await fetch(new URL("/json", inspector.replace(/^ws/, "http")))).json();
  const target = targets.find(({ id, title }) => [id, title].some((text) => text?.endsWith(worker)));
  if (target === undefined) throw new Error(`no ${worker} among ${JSON.stringify(targets)}`);
  const socket = new WebSocket(target.webSocketDebuggerUrl);
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve);
    socket.addEventListener("error", () => reject(new Error(`the debugger of ${worker} can't be reached`)));
  });
  try {
    let last = 0;
    const ask = (method) =>
      new Promise((resolve, reject) => {
        const id = ++last;
        const hear = ({ data }) => {
          const message = JSON.parse(data);
          if (message.id !== id) return;
          socket.removeEventListener("message", hear);
          if (message.error) reject(new Error(`${method}: ${message.error.message}`));
          else resolve(message.result);
        };
        socket.addEventListener("message", hear);
        socket.send(JSON.stringify({ id, method }));
      });
    await ask("HeapProfiler.enable");
    await ask("HeapProfiler.collectGarbage");
    const { usedSize, backingStorageSize = 0 } = await ask("Runtime.getHeapUsage");
    return usedSize + backingStorageSize;
  } finally {
    socket.close();
  }
}
