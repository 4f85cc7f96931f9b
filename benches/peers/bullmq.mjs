// BullMQ as the benchmark `peers` runs it (benches/peers.rs), in one of two roles:
//
//   node bullmq.mjs worker PORT CONCURRENCY
//       Runs jobs that return their payload, and prints "ready".
//   node bullmq.mjs load PORT one-by-one|bulk COUNT IN_FLIGHT BYTES
//       Adds COUNT jobs, by IN_FLIGHT calls at a time or by lists of IN_FLIGHT jobs, waits until all have
//       completed, compares some results, and prints how many completed a second.

import { Job, Queue, Worker } from 'bullmq';

const [role, port, ...args] = process.argv.slice(2);
const connection = { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null };
const NAME = 'echo';

async function work(concurrency) {
  const worker = new Worker(NAME, async (job) => job.data, {
    connection,
    concurrency: Number(concurrency),
  });
  worker.on('error', (error) => console.error(error));
  await worker.waitUntilReady();
  console.log('ready');
}

async function load(mode, count, inFlight, bytes) {
  const [jobs, width] = [Number(count), Number(inFlight)];
  const payload = 'x'.repeat(Number(bytes));
  const queue = new Queue(NAME, { connection });
  await queue.waitUntilReady();
  const ids = [];
  const begin = performance.now();
  if (mode === 'bulk') {
    while (ids.length < jobs) {
      const size = Math.min(width, jobs - ids.length);
      const list = Array.from({ length: size }, () => ({ name: NAME, data: payload }));
      for (const job of await queue.addBulk(list)) ids.push(job.id);
    }
  } else {
    let started = 0;
    const caller = async () => {
      while (started < jobs) {
        started += 1;
        ids.push((await queue.add(NAME, payload)).id);
      }
    };
    await Promise.all(Array.from({ length: width }, caller));
  }
  while ((await queue.getCompletedCount()) < jobs) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const seconds = (performance.now() - begin) / 1000;
  for (let index = 0; index < jobs; index += Math.ceil(jobs / 100)) {
    const job = await Job.fromId(queue, ids[index]);
    if (job.returnvalue !== payload) throw new Error(`job ${ids[index]} has another result`);
  }
  console.log(jobs / seconds);
  await queue.close();
}

if (role === 'worker') {
  await work(...args);
} else {
  await load(...args);
}
