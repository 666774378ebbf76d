"""What the gateway refuses reaches the caller as the SDK's own error classes, and is retried only where that helps."""

import contextlib
import math
import unittest
from concurrent.futures import ThreadPoolExecutor

import gateway
import openai
from gateway import Counter, steer

MESSAGES = [{"role": "user", "content": "Count."}]
# More than the whole budget of the tenant with few tokens, and not by a little.
LONG = [{"role": "user", "content": "word " * 500}]
CLIENTS = {"azure": gateway.azure, "v1": gateway.v1}


def status(error: openai.APIStatusError) -> tuple[int, str]:
    return error.status_code, error.response.json()["error"]


class Final(unittest.TestCase):
    """Refusals that waiting does not help: the SDK, left to its default of two retries, calls once."""

    def refused(
        self, tenant: str, kind: type[openai.APIStatusError], messages: list = MESSAGES, **call: object
    ) -> openai.APIStatusError:
        errors: list[openai.APIStatusError] = []
        for name, connect in CLIENTS.items():
            with self.subTest(client=name), connect(tenant) as client:
                requests = Counter("gateway_requests_total", tenant=tenant)
                with self.assertRaises(kind) as caught:
                    client.chat.completions.create(**{"model": "chat", "messages": messages} | call)
                self.assertEqual(requests.reaches(1), 1)
                errors.append(caught.exception)
        if len(errors) < len(CLIENTS):
            self.fail("not refused to every client")
        self.assertEqual(len({status(error) for error in errors}), 1)
        return errors[0]

    def test_a_wrong_key(self) -> None:
        for name, connect in CLIENTS.items():
            with self.subTest(client=name), connect(api_key="aoai_wrong") as client:
                with self.assertRaises(openai.AuthenticationError) as caught:
                    client.chat.completions.create(model="chat", messages=MESSAGES)
                self.assertEqual(status(caught.exception), (401, "invalid_subscription_key"))

    def test_a_deployment_that_is_not_the_tenants(self) -> None:
        error = self.refused("only-embeddings", openai.PermissionDeniedError)
        self.assertEqual(status(error), (403, "deployment_not_allowed"))

    def test_a_deployment_that_is_nobodys(self) -> None:
        error = self.refused("spare", openai.NotFoundError, model="no-such")
        self.assertEqual(status(error), (404, "unknown_deployment"))

    def test_a_prompt_beyond_the_whole_budget(self) -> None:
        error = self.refused("few-tokens", openai.APIStatusError, messages=LONG)
        self.assertEqual(status(error), (413, "prompt_exceeds_budget"))

    def test_a_token_quota_that_is_used_up(self) -> None:
        error = self.refused("no-quota", openai.PermissionDeniedError)
        self.assertEqual(status(error), (403, "token_quota_exceeded"))
        self.assertEqual(error.response.headers["x-quota-reason"], "token_quota_exceeded")

    def test_a_spend_quota_that_is_used_up(self) -> None:
        error = self.refused("no-money", openai.PermissionDeniedError)
        self.assertEqual(status(error), (403, "spend_quota_exceeded"))

    def test_a_call_that_would_escape_metering(self) -> None:
        with gateway.v1() as client, self.assertRaises(openai.BadRequestError) as caught:
            client.responses.create(model="chat", input="Count.", background=True)
        self.assertEqual(status(caught.exception), (400, "invalid_request"))

    def test_a_route_that_is_not_metered(self) -> None:
        with gateway.v1() as client, self.assertRaises(openai.NotFoundError) as caught:
            client.files.list()
        self.assertEqual(status(caught.exception), (404, "unknown_route"))


class Passing(unittest.TestCase):
    """Refusals that end by themselves: 429 with the time after which to come back."""

    def test_the_token_budget_says_when_to_come_back(self) -> None:
        with gateway.azure("few-tokens", max_retries=0) as client:
            with self.assertRaises(openai.RateLimitError) as caught:
                for _ in range(20):
                    client.chat.completions.create(model="chat", messages=MESSAGES, user=steer(tokens=20))
        self.assertEqual(status(caught.exception), (429, "token_budget_exceeded"))
        headers = caught.exception.response.headers
        milliseconds = int(headers["retry-after-ms"])
        self.assertLessEqual(milliseconds, 60_000)
        self.assertEqual(int(headers["retry-after"]), math.ceil(milliseconds / 1000))
        self.assertEqual(headers["x-quota-reason"], "token_budget_exceeded")

    def test_the_sdk_comes_back_when_it_is_told_to_and_is_served(self) -> None:
        # One call a minute, and one retry: the SDK's own back-off of half a second would be refused again.
        with gateway.v1("one-call", max_retries=1) as client:
            throttled = Counter("gateway_throttled_total", tenant="one-call", reason="rate_limit")
            served = Counter("gateway_requests_total", tenant="one-call", status="200")
            for _ in range(2):
                reply = client.chat.completions.create(model="chat", messages=MESSAGES)
                self.assertTrue(reply.choices[0].message.content)
            self.assertEqual(served.reaches(2), 2)
            self.assertEqual(throttled.reaches(1), 1)

    def test_a_slot_that_comes_free_is_taken_by_a_retry(self) -> None:
        with gateway.azure("one-at-a-time", max_retries=10) as client, contextlib.ExitStack() as open_stream:
            throttled = Counter("gateway_throttled_total", tenant="one-at-a-time", reason="concurrency_limit")
            stream = open_stream.enter_context(
                client.chat.completions.create(
                    model="chat", messages=MESSAGES, stream=True, user=steer(tokens=100_000, chunk_delay_ms=50)
                )
            )
            next(iter(stream))
            refused = gateway.azure("one-at-a-time", max_retries=0)
            with refused, self.assertRaises(openai.RateLimitError) as caught:
                refused.chat.completions.create(model="chat", messages=MESSAGES)
            self.assertEqual(status(caught.exception), (429, "concurrency_limit"))
            with ThreadPoolExecutor() as pool:
                waiting = pool.submit(client.chat.completions.create, model="chat", messages=MESSAGES)
                self.assertGreaterEqual(throttled.reaches(2), 2)
                stream.close()
                self.assertTrue(waiting.result().choices[0].message.content)

    def test_azures_own_refusal_passes_and_is_retried(self) -> None:
        with gateway.azure("spare", max_retries=2) as client:
            refused = Counter("gateway_requests_total", tenant="spare", status="429")
            with self.assertRaises(openai.RateLimitError) as caught:
                client.chat.completions.create(
                    model="chat",
                    messages=MESSAGES,
                    user=steer(fault={"rate_limited": {"retry_after_ms": 100}}),
                )
            headers = caught.exception.response.headers
            self.assertEqual((headers["x-quota-reason"], headers["retry-after-ms"]), ("upstream", "100"))
            self.assertEqual(caught.exception.code, "429")
            self.assertEqual(refused.reaches(3), 3)


class AsyncRefusals(unittest.IsolatedAsyncioTestCase):
    """The asyncio clients raise the same."""

    async def test_error_classes(self) -> None:
        cases = [
            (gateway.async_v1, {"api_key": "aoai_wrong"}, "chat", openai.AuthenticationError, 401),
            (gateway.async_azure, {"tenant": "only-embeddings"}, "chat", openai.PermissionDeniedError, 403),
            (gateway.async_v1, {}, "no-such", openai.NotFoundError, 404),
        ]
        for connect, options, model, kind, code in cases:
            with self.subTest(code=code):
                async with connect(**options) as client:
                    with self.assertRaises(kind) as caught:
                        await client.chat.completions.create(model=model, messages=MESSAGES)
                self.assertEqual(caught.exception.status_code, code)


if __name__ == "__main__":
    unittest.main()
