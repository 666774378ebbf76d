// What callers ask for comes back as if Azure had answered them directly: both clients, whole and streamed.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { answer, azure, counter, steer, v1 } from './gateway.mjs';

const messages = [{ role: 'user', content: 'Count.' }];
const TOKENS = 12;
// What comes of an answer whose rest never does: whoever is given it was not kept waiting for more.
const PART = 5;
const UNENDED = steer({ tokens: TOKENS, fault: { stall: { after_chunks: PART } } });
// How long a client waits for a part of it.
const PATIENCE = { timeout: 60_000 };

for (const [name, connect] of Object.entries({ azure, v1 })) {
  describe(name, () => {
    const client = connect();
    const leaving = connect('leaving');

    test('a chat completion', async () => {
      const consumed = await counter('aoai_tokens_consumed_total', { tenant: 'free', deployment: 'chat', kind: 'single' });
      const reply = await client.chat.completions.create({ model: 'chat', messages, user: steer({ tokens: TOKENS }) });
      assert.equal(reply.choices[0].message.content, answer(TOKENS));
      assert.equal(reply.usage.completion_tokens, TOKENS);
      assert.equal(await consumed(reply.usage.total_tokens), reply.usage.total_tokens);
    });

    test('a stream arrives in order and as it is written', PATIENCE, async () => {
      const stream = await client.chat.completions.create({
        model: 'chat',
        messages,
        stream: true,
        user: steer({ tokens: TOKENS }),
      });
      const pieces = [];
      for await (const chunk of stream) {
        // The caller did not ask for the usage chunk, so the gateway's own must not show.
        assert.ok(!chunk.usage);
        const piece = chunk.choices[0]?.delta?.content;
        if (piece) pieces.push(piece);
      }
      assert.equal(pieces.join(''), answer(TOKENS));
      assert.equal(pieces.length, TOKENS);
      const part = [];
      const unended = { model: 'chat', messages, stream: true, user: UNENDED };
      for await (const chunk of await leaving.chat.completions.create(unended)) {
        const piece = chunk.choices[0]?.delta?.content;
        if (piece) part.push(piece);
        if (part.length === PART) break;
      }
      assert.equal(part.join(''), answer(PART));
    });

    test('a stream ends with usage where it was asked for', async () => {
      const stream = await client.chat.completions.create({
        model: 'chat',
        messages,
        stream: true,
        stream_options: { include_usage: true },
        user: steer({ tokens: TOKENS }),
      });
      const chunks = [];
      for await (const chunk of stream) chunks.push(chunk);
      assert.deepEqual(chunks.at(-1).choices, []);
      assert.equal(chunks.at(-1).usage.completion_tokens, TOKENS);
    });

    test('embeddings', async () => {
      const reply = await client.embeddings.create({ model: 'embed', input: ['one text', 'and another'] });
      assert.deepEqual(
        reply.data.map((item) => item.index),
        [0, 1],
      );
      assert.ok(reply.data[0].embedding.length > 0);
    });

    test('a response', async () => {
      const reply = await client.responses.create({ model: 'chat', input: 'Count.', user: steer({ tokens: TOKENS }) });
      assert.equal(reply.output_text, answer(TOKENS));
      assert.equal(reply.usage.output_tokens, TOKENS);
    });

    test('a response streams', PATIENCE, async () => {
      const stream = await client.responses.create({
        model: 'chat',
        input: 'Count.',
        stream: true,
        user: steer({ tokens: TOKENS }),
      });
      const kinds = [];
      let text = '';
      for await (const event of stream) {
        kinds.push(event.type);
        if (event.type === 'response.output_text.delta') text += event.delta;
      }
      assert.equal(text, answer(TOKENS));
      assert.deepEqual([kinds[0], kinds.at(-1)], ['response.created', 'response.completed']);
      const part = [];
      const unended = { model: 'chat', input: 'Count.', stream: true, user: UNENDED };
      for await (const event of await leaving.responses.create(unended)) {
        if (event.type === 'response.output_text.delta') part.push(event.delta);
        if (part.length === PART) break;
      }
      assert.equal(part.join(''), answer(PART));
    });
  });
}

test("the models are the tenant's deployments", async () => {
  const models = [];
  for await (const model of v1('only-embeddings').models.list()) models.push(model.id);
  assert.deepEqual(models, ['embed']);
});
