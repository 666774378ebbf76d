// What the gateway refuses reaches the caller as the SDK's own error classes, and is retried only where that helps.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import OpenAI from 'openai';

import { azure, counter, steer, v1 } from './gateway.mjs';

const messages = [{ role: 'user', content: 'Count.' }];
// More than the whole budget of the tenant with few tokens, and not by a little.
const long = [{ role: 'user', content: 'word '.repeat(500) }];

async function refused(client, body, kind) {
  const error = await client.chat.completions.create({ model: 'chat', messages, ...body }).then(
    () => assert.fail('was served'),
    (error) => error,
  );
  assert.ok(error instanceof kind, `${error}`);
  return error;
}

for (const [name, connect] of Object.entries({ azure, v1 })) {
  describe(`${name}: refusals that waiting does not help are not retried`, () => {
    const final = [
      ['only-embeddings', {}, OpenAI.PermissionDeniedError, 403, 'deployment_not_allowed'],
      ['spare', { model: 'no-such' }, OpenAI.NotFoundError, 404, 'unknown_deployment'],
      ['few-tokens', { messages: long }, OpenAI.APIError, 413, 'prompt_exceeds_budget'],
      ['no-quota', {}, OpenAI.PermissionDeniedError, 403, 'token_quota_exceeded'],
      ['no-money', {}, OpenAI.PermissionDeniedError, 403, 'spend_quota_exceeded'],
    ];
    for (const [tenant, body, kind, status, reason] of final) {
      test(`${status} ${reason}`, async () => {
        const requests = await counter('gateway_requests_total', { tenant });
        const error = await refused(connect(tenant), body, kind);
        assert.equal(error.status, status);
        assert.equal(error.error, reason);
        assert.equal(await requests(1), 1);
      });
    }

    test('401 invalid_subscription_key', async () => {
      const error = await refused(connect('spare', { apiKey: 'aoai_wrong' }), {}, OpenAI.AuthenticationError);
      assert.deepEqual([error.status, error.error], [401, 'invalid_subscription_key']);
    });
  });
}

describe('refusals that end by themselves', () => {
  test('the token budget says when to come back', async () => {
    const client = azure('few-tokens', { maxRetries: 0 });
    const body = { model: 'chat', messages, user: steer({ tokens: 20 }) };
    let error;
    for (let call = 0; call < 20 && !error; call += 1) {
      error = await client.chat.completions.create(body).then(
        () => undefined,
        (error) => error,
      );
    }
    assert.ok(error instanceof OpenAI.RateLimitError, `${error}`);
    assert.equal(error.error, 'token_budget_exceeded');
    const milliseconds = Number(error.headers.get('retry-after-ms'));
    assert.ok(milliseconds > 0 && milliseconds <= 60_000);
    assert.equal(Number(error.headers.get('retry-after')), Math.ceil(milliseconds / 1000));
  });

  test('the SDK comes back when it is told to and is served', async () => {
    // One call a minute, and one retry: the SDK's own back-off of half a second would be refused again.
    const client = v1('one-call', { maxRetries: 1 });
    const throttled = await counter('gateway_throttled_total', { tenant: 'one-call', reason: 'rate_limit' });
    const served = await counter('gateway_requests_total', { tenant: 'one-call', status: '200' });
    for (let call = 0; call < 2; call += 1) {
      const reply = await client.chat.completions.create({ model: 'chat', messages });
      assert.ok(reply.choices[0].message.content);
    }
    assert.equal(await served(2), 2);
    assert.equal(await throttled(1), 1);
  });

  test("Azure's own refusal passes and is retried", async () => {
    const attempts = await counter('gateway_requests_total', { tenant: 'spare', status: '429' });
    const user = steer({ fault: { rate_limited: { retry_after_ms: 100 } } });
    const error = await refused(azure('spare', { maxRetries: 2 }), { user }, OpenAI.RateLimitError);
    assert.equal(error.headers.get('x-quota-reason'), 'upstream');
    assert.equal(error.headers.get('retry-after-ms'), '100');
    assert.equal(await attempts(3), 3);
  });
});
