// kafkajs, unmodified: node stock_client.mjs BOOTSTRAP SUFFIX. A failed expectation ends the program with 1.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";

// kafkajs lives where the test installed it, which is not beside this file.
const require = createRequire(path.join(process.env.CLIENT_MODULES, "index.js"));
const { CompressionTypes, Kafka, logLevel } = require("kafkajs");

const [, , bootstrap, suffix] = process.argv;
const kafka = new Kafka({ clientId: "stock", brokers: [bootstrap], logLevel: logLevel.ERROR });
const admin = kafka.admin();
const passed = (name) => console.log(JSON.stringify({ passed: name }));

/** Reads until `count` messages came; the consumer stays connected. */
async function read(consumer, count) {
  const messages = [];
  let enough;
  const done = new Promise((resolve) => (enough = resolve));
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      messages.push({ partition, ...message });
      if (messages.length === count) enough();
    },
  });
  await done;
  return messages;
}

async function topics() {
  const topic = `node-admin-${suffix}`;
  assert.equal(await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: 2 }] }), true);
  assert.equal(await admin.createTopics({ topics: [{ topic, numPartitions: 2 }] }), false);
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
  const described = await admin.fetchTopicMetadata({ topics: [topic] });
  assert.equal(described.topics[0].partitions.length, 3);
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: 2, name: topic, configEntries: [{ name: "retention.ms", value: "60000" }] }],
  });
  const configs = await admin.describeConfigs({
    includeSynonyms: true,
    resources: [{ type: 2, name: topic, configNames: ["retention.ms"] }],
  });
  assert.equal(configs.resources[0].configEntries[0].configValue, "60000");
  await admin.deleteTopics({ topics: [topic] });
  assert.equal((await admin.listTopics()).includes(topic), false);
  passed("topics");
}

async function records() {
  const topic = `node-records-${suffix}`;
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: 1 }] });
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  const plain = Array.from({ length: 100 }, (_, number) => ({ key: `k${number % 7}`, value: `value ${number}` }));
  const sent = await producer.send({ topic, acks: -1, messages: plain });
  assert.equal(sent[0].baseOffset, "0");
  const zipped = plain.map((message) => ({ ...message, headers: { trace: "7" } }));
  await producer.send({ topic, compression: CompressionTypes.GZIP, messages: zipped });
  await producer.send({ topic, messages: [{ key: "k", value: null }] });
  await producer.disconnect();

  const consumer = kafka.consumer({ groupId: `node-reader-${suffix}` });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  const messages = await read(consumer, 201);
  await consumer.disconnect();
  assert.deepEqual(messages.map((message) => message.offset), Array.from({ length: 201 }, (_, offset) => `${offset}`));
  assert.equal(messages[150].value.toString(), "value 50");
  assert.equal(messages[150].headers.trace.toString(), "7");
  assert.equal(messages[200].value, null);
  const offsets = await admin.fetchTopicOffsets(topic);
  assert.deepEqual(offsets, [{ partition: 0, offset: "201", high: "201", low: "0" }]);
  passed("records");
}

async function groups() {
  const topic = `node-groups-${suffix}`;
  const groupId = `node-group-${suffix}`;
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: 4 }] });
  const members = [1, 2].map(() => kafka.consumer({ groupId, sessionTimeout: 30000, heartbeatInterval: 500 }));
  const values = new Set();
  let wake = () => {};
  for (const member of members) {
    await member.connect();
    await member.subscribe({ topics: [topic], fromBeginning: true });
    await member.run({
      eachMessage: async ({ message }) => {
        values.add(message.value.toString());
        wake();
      },
    });
  }
  const described = async () => (await admin.describeGroups([groupId])).groups[0];
  while ((await described()).members.length !== 2 || (await described()).state !== "Stable") await pause();
  const producer = kafka.producer();
  await producer.connect();
  const send = (from, to) =>
    producer.send({
      topic,
      messages: Array.from({ length: to - from }, (_, i) => ({ value: `${from + i}`, partition: i % 4 })),
    });
  const seen = async (count) => {
    while (values.size < count) await Promise.race([new Promise((resolve) => (wake = resolve)), pause()]);
  };
  await send(0, 40);
  await seen(40);
  await members[1].disconnect();
  await send(40, 80);
  await seen(80);
  await members[0].disconnect();
  const committed = await admin.fetchOffsets({ groupId, topics: [topic] });
  assert.deepEqual(committed[0].partitions.map(({ offset }) => offset), ["20", "20", "20", "20"]);
  await admin.deleteGroups([groupId]);
  await producer.disconnect();
  passed("groups");
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 100));

await admin.connect();
await topics();
await records();
await groups();
await admin.disconnect();
