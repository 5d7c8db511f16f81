// OpenAI's SDK for JavaScript: a stream, a picture and a tool. `npm install openai`, then `node sdk.mjs PICTURE`.
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:8000/v1",
  apiKey: process.env.OPENAI_API_KEY ?? "any",
});
const model = "gemma";

const stream = await client.chat.completions.create({
  model,
  messages: [{ role: "user", content: "Hello!" }],
  max_tokens: 32,
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
console.log();

const url = `data:image/png;base64,${readFileSync(process.argv[2]).toString("base64")}`;
const seen = await client.chat.completions.create({
  model,
  messages: [
    {
      role: "user",
      content: [
        { type: "image_url", image_url: { url, detail: "low" } },
        { type: "text", text: "What is in this picture?" },
      ],
    },
  ],
  max_tokens: 32,
});
console.log(seen.choices[0].message.content, seen.usage.prompt_tokens_details);

const weather = {
  name: "weather",
  description: "The weather in a city.",
  parameters: {
    type: "object",
    properties: { city: { type: "string", enum: ["Oslo", "Rome"] } },
    required: ["city"],
    additionalProperties: false,
  },
};
const called = await client.chat.completions.create({
  model,
  messages: [{ role: "user", content: "How is the weather in Oslo?" }],
  tools: [{ type: "function", function: weather }],
  tool_choice: "required",
  parallel_tool_calls: false,
  max_tokens: 200,
});
const [call] = called.choices[0].message.tool_calls;
console.log(call.function.name, JSON.parse(call.function.arguments));
