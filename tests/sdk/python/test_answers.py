"""What callers ask for comes back as if Azure had answered them directly: all four clients, whole and streamed."""

import itertools
import unittest

import gateway
from gateway import Counter, answer, steer

MESSAGES = [{"role": "user", "content": "Count."}]
TOKENS = 12
# What comes of an answer whose rest never does: whoever is given it was not kept waiting for more.
PART = 5
UNENDED = steer(tokens=TOKENS, fault={"stall": {"after_chunks": PART}})
# How long a client waits for a part of it.
PATIENCE_SECONDS = 30


class Sync:
    """The tests of a client that blocks; subclasses say which."""

    connect = None

    def setUp(self) -> None:
        self.client = type(self).connect()
        self.addCleanup(self.client.close)

    def test_a_chat_completion(self) -> None:
        consumed = Counter("aoai_tokens_consumed_total", tenant="free", deployment="chat", kind="single")
        reply = self.client.chat.completions.create(
            model="chat", messages=MESSAGES, user=steer(tokens=TOKENS)
        )
        self.assertEqual(reply.choices[0].message.content, answer(TOKENS))
        self.assertEqual(reply.choices[0].finish_reason, "stop")
        self.assertEqual(reply.usage.completion_tokens, TOKENS)
        self.assertEqual(consumed.reaches(reply.usage.total_tokens), reply.usage.total_tokens)

    def test_a_chat_completion_cut_by_its_own_limit(self) -> None:
        reply = self.client.chat.completions.create(
            model="chat", messages=MESSAGES, max_tokens=5, user=steer(tokens=TOKENS)
        )
        self.assertEqual(reply.choices[0].message.content, answer(5))
        self.assertEqual(reply.choices[0].finish_reason, "length")

    def test_headers_say_what_is_left(self) -> None:
        raw = self.client.chat.completions.with_raw_response.create(
            model="chat", messages=MESSAGES, user=steer(tokens=TOKENS)
        )
        reply = raw.parse()
        self.assertTrue(raw.headers["x-request-id"])
        self.assertEqual(int(raw.headers["x-tokens-consumed"]), reply.usage.total_tokens)
        self.assertGreater(int(raw.headers["x-tokens-remaining"]), 0)
        self.assertGreater(int(raw.headers["x-ratelimit-remaining"]), 0)

    def test_a_stream_arrives_in_order_and_as_it_is_written(self) -> None:
        pieces = []
        with self.client.chat.completions.create(
            model="chat", messages=MESSAGES, stream=True, user=steer(tokens=TOKENS)
        ) as stream:
            for chunk in stream:
                # The caller did not ask for the usage chunk, so the gateway's own must not show.
                self.assertIsNone(chunk.usage)
                if chunk.choices and chunk.choices[0].delta.content:
                    pieces.append(chunk.choices[0].delta.content)
        self.assertEqual("".join(pieces), answer(TOKENS))
        self.assertEqual(len(pieces), TOKENS)
        with (
            type(self).connect("leaving", timeout=PATIENCE_SECONDS) as client,
            client.chat.completions.create(
                model="chat", messages=MESSAGES, stream=True, user=UNENDED
            ) as stream,
        ):
            pieces = (chunk.choices[0].delta.content for chunk in stream if chunk.choices)
            self.assertEqual("".join(itertools.islice(filter(None, pieces), PART)), answer(PART))

    def test_a_stream_ends_with_usage_where_it_was_asked_for(self) -> None:
        consumed = Counter("aoai_tokens_consumed_total", tenant="free", deployment="chat", kind="stream")
        chunks = list(
            self.client.chat.completions.create(
                model="chat",
                messages=MESSAGES,
                stream=True,
                stream_options={"include_usage": True},
                user=steer(tokens=TOKENS),
            )
        )
        self.assertEqual([chunk.usage for chunk in chunks[:-1]], [None] * (len(chunks) - 1))
        self.assertEqual(chunks[-1].choices, [])
        usage = chunks[-1].usage
        self.assertEqual(usage.completion_tokens, TOKENS)
        self.assertEqual(consumed.reaches(usage.total_tokens), usage.total_tokens)

    def test_a_completion(self) -> None:
        reply = self.client.completions.create(model="instruct", prompt="Count.", user=steer(tokens=TOKENS))
        self.assertEqual(reply.choices[0].text, answer(TOKENS))

    def test_embeddings(self) -> None:
        consumed = Counter("aoai_tokens_consumed_total", tenant="free", deployment="embed")
        reply = self.client.embeddings.create(model="embed", input=["one text", "and another"])
        self.assertEqual([item.index for item in reply.data], [0, 1])
        self.assertGreater(len(reply.data[0].embedding), 0)
        self.assertEqual(consumed.reaches(reply.usage.total_tokens), reply.usage.total_tokens)

    def test_a_response(self) -> None:
        reply = self.client.responses.create(model="chat", input="Count.", user=steer(tokens=TOKENS))
        self.assertEqual(reply.output_text, answer(TOKENS))
        self.assertEqual(reply.status, "completed")
        self.assertEqual(reply.usage.output_tokens, TOKENS)

    def test_a_response_streams(self) -> None:
        text, kinds = "", []
        with self.client.responses.create(
            model="chat", input="Count.", stream=True, user=steer(tokens=TOKENS)
        ) as stream:
            for event in stream:
                kinds.append(event.type)
                if event.type == "response.output_text.delta":
                    text += event.delta
        self.assertEqual(text, answer(TOKENS))
        self.assertEqual((kinds[0], kinds[-1]), ("response.created", "response.completed"))
        with (
            type(self).connect("leaving", timeout=PATIENCE_SECONDS) as client,
            client.responses.create(model="chat", input="Count.", stream=True, user=UNENDED) as stream,
        ):
            deltas = (event.delta for event in stream if event.type == "response.output_text.delta")
            self.assertEqual("".join(itertools.islice(deltas, PART)), answer(PART))


class Azure(Sync, unittest.TestCase):
    """AzureOpenAI."""

    connect = staticmethod(gateway.azure)


class V1(Sync, unittest.TestCase):
    """OpenAI, with /openai/v1 as its base."""

    connect = staticmethod(gateway.v1)

    def test_the_models_are_the_tenants_deployments(self) -> None:
        self.assertEqual({model.id for model in self.client.models.list()}, {"chat", "instruct", "embed"})
        with gateway.v1("only-embeddings") as client:
            self.assertEqual([model.id for model in client.models.list()], ["embed"])


class Async:
    """The tests of an asyncio client; subclasses say which."""

    connect = None

    async def asyncSetUp(self) -> None:
        self.client = type(self).connect()
        self.addAsyncCleanup(self.client.close)

    async def test_a_chat_completion(self) -> None:
        reply = await self.client.chat.completions.create(
            model="chat", messages=MESSAGES, user=steer(tokens=TOKENS)
        )
        self.assertEqual(reply.choices[0].message.content, answer(TOKENS))
        self.assertEqual(reply.usage.completion_tokens, TOKENS)

    async def test_a_stream_arrives_in_order_and_as_it_is_written(self) -> None:
        pieces = []
        async with await self.client.chat.completions.create(
            model="chat", messages=MESSAGES, stream=True, user=steer(tokens=TOKENS)
        ) as stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    pieces.append(chunk.choices[0].delta.content)
        self.assertEqual("".join(pieces), answer(TOKENS))
        self.assertEqual(len(pieces), TOKENS)
        pieces = []
        async with (
            type(self).connect("leaving", timeout=PATIENCE_SECONDS) as client,
            await client.chat.completions.create(
                model="chat", messages=MESSAGES, stream=True, user=UNENDED
            ) as stream,
        ):
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    pieces.append(chunk.choices[0].delta.content)
                if len(pieces) == PART:
                    break
        self.assertEqual("".join(pieces), answer(PART))

    async def test_embeddings(self) -> None:
        reply = await self.client.embeddings.create(model="embed", input="one text")
        self.assertEqual([item.index for item in reply.data], [0])

    async def test_a_response(self) -> None:
        reply = await self.client.responses.create(model="chat", input="Count.", user=steer(tokens=TOKENS))
        self.assertEqual(reply.output_text, answer(TOKENS))

    async def test_a_response_streams(self) -> None:
        text, kinds = "", []
        async with await self.client.responses.create(
            model="chat", input="Count.", stream=True, user=steer(tokens=TOKENS)
        ) as stream:
            async for event in stream:
                kinds.append(event.type)
                if event.type == "response.output_text.delta":
                    text += event.delta
        self.assertEqual(text, answer(TOKENS))
        self.assertEqual((kinds[0], kinds[-1]), ("response.created", "response.completed"))


class AsyncAzure(Async, unittest.IsolatedAsyncioTestCase):
    """AsyncAzureOpenAI."""

    connect = staticmethod(gateway.async_azure)


class AsyncV1(Async, unittest.IsolatedAsyncioTestCase):
    """AsyncOpenAI, with /openai/v1 as its base."""

    connect = staticmethod(gateway.async_v1)


if __name__ == "__main__":
    unittest.main()
