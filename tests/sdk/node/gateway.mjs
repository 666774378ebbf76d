// The gateway under test: its clients, and what its metrics say.

import { setTimeout as sleep } from 'node:timers/promises';

import OpenAI, { AzureOpenAI } from 'openai';

const URL = process.env.AOAI_TEST_GATEWAY;
const ADMIN = process.env.AOAI_TEST_ADMIN;
const KEYS = JSON.parse(process.env.AOAI_TEST_KEYS);

const WORDS = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'];
// For what a metric counts after its caller has read the last byte.
const SETTLE_MILLISECONDS = 30_000;

/** An instruction to the simulator, for the `user` field. */
export const steer = (behaviour) => `sim:${JSON.stringify(behaviour)}`;

/** What the simulator says in that many tokens. */
export const answer = (tokens) => Array.from({ length: tokens }, (_, at) => WORDS[at % WORDS.length]).join(' ');

/** The client with deployments in its paths and the key in `api-key`. */
export const azure = (tenant = 'free', options = {}) =>
  new AzureOpenAI({ endpoint: URL, apiVersion: '2024-10-21', apiKey: KEYS[tenant], ...options });

/** The client with deployments in its bodies and the key as a bearer token. */
export const v1 = (tenant = 'free', options = {}) =>
  new OpenAI({ baseURL: `${URL}/openai/v1`, apiKey: KEYS[tenant], ...options });

/** The sum of a metric over all series that have these labels. */
export async function metric(name, labels) {
  const text = await (await fetch(`${ADMIN}/metrics`)).text();
  let total = 0;
  for (const line of text.split('\n')) {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (match?.[1] !== name) continue;
    const series = Object.fromEntries([...(match[2] ?? '').matchAll(/(\w+)="([^"]*)"/g)].map((pair) => pair.slice(1)));
    if (Object.entries(labels).every(([label, value]) => series[label] === value)) total += Number(match[3]);
  }
  return total;
}

/** How much a metric grows from now on: a function that waits a while for `expected`, and gives what it then is. */
export async function counter(name, labels) {
  const start = await metric(name, labels);
  return async (expected) => {
    const deadline = performance.now() + SETTLE_MILLISECONDS;
    for (;;) {
      const grown = (await metric(name, labels)) - start;
      if (grown >= expected || performance.now() > deadline) return grown;
      await sleep(20);
    }
  };
}
