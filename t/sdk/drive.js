// Copyright (C) the ngx_http_iothub_module authors

// Drives a hub with Microsoft's own SDK, step by step, and prints what became
// of each step as a JSON array.  Every step is one exchange with the hub, so
// that a step and an entry of the simulator's journal belong together.
//
// Environment: HUB_HOST, HUB_PORT (on this machine), POLICY_KEY, OTHER_KEY.

'use strict';

const tls = require('tls');

const { HUB_HOST, HUB_PORT, POLICY_KEY, OTHER_KEY } = process.env;

// The SDK takes a host name only: connect to the simulator in its place,
// with the hub's name for SNI and verification.

const connect = tls.connect;

tls.connect = function (options, ...rest) {
    if (options.host === HUB_HOST) {
        options = { ...options, host: '127.0.0.1', port: HUB_PORT,
            servername: HUB_HOST };
    }

    return connect.call(tls, options, ...rest);
};

const { Registry } = require('azure-iothub');
const { Client, Message } = require('azure-iot-device');
const { Http } = require('azure-iot-device-http');

const SPECIAL = "A-.:+%_#*?!(),=@;$'z";

// not = and ;, which end a value of a connection string
const SPECIAL_DEVICE = "A-.:+%_#*?!(),@$'z";

const TIME = '2026-01-02T03:04:05.678Z';


function registry(policy, key) {
    return Registry.fromConnectionString(
        `HostName=${HUB_HOST};SharedAccessKeyName=${policy};`
        + `SharedAccessKey=${key}`);
}


function device(id, policy, key) {
    const name = policy ? `SharedAccessKeyName=${policy};` : '';

    return Client.fromConnectionString(
        `HostName=${HUB_HOST};DeviceId=${id};${name}SharedAccessKey=${key}`,
        Http);
}


function full() {
    const message = new Message('{"event":"temp","data":"23.5"}');

    message.properties.add('event', 'temp');
    message.properties.add('published_at', TIME);
    message.messageId = 'm-1';
    message.correlationId = 'c-1';
    message.userId = 'particle';
    message.contentType = 'application/json';
    message.contentEncoding = 'utf-8';

    return message;
}


function allSystem() {
    const message = full();

    message.to = '/some/where';
    message.expiryTimeUtc = '2030-01-01T00:00:00Z';
    message.ack = 'none';
    message.interfaceId = 'urn:azureiot:Security:SecurityAgent:1';
    message.properties.add('dt-subject', 'thermostat1');

    return message;
}


function special() {
    const message = new Message('x');

    message.properties.add('k!#$%&*+-.^_|~', 'v a l u e; "q", {b}=1/2');

    return message;
}


function batch() {
    const first = new Message('{"event":"temp","data":"23.5"}');
    const third = new Message('third');

    first.properties.add('event', 'temp');
    first.properties.add('published_at', TIME);
    third.properties.add('a', '1');
    third.properties.add('b', '2');

    return [first, new Message(Buffer.from([0, 1, 0xfe, 0xff])), third];
}


// The identity as the hub told it last, for an update that needs its etag.
let last;

const hub = registry('webhook', POLICY_KEY);
const reader = registry('reader', POLICY_KEY);
const stranger = registry('webhook', OTHER_KEY);

const create = (identity) => () => hub.create(identity);
const get = (id) => () => hub.get(id);
const remove = (id) => () => hub.delete(id);

const send = (client, message) => () => client().sendEvent(message());

const byDevice = () => device('dev-1', null, POLICY_KEY);
const byPolicy = () => device('dev-1', 'webhook', POLICY_KEY);
const text = (data) => () => new Message(data);

const keys = { primaryKey: POLICY_KEY, secondaryKey: OTHER_KEY };

const STEPS = [
    // the registry, where the SDK signs with a policy

    ['registry-create-default', create({ deviceId: 'dev-1' })],
    ['create-again', create({ deviceId: 'dev-1' })],
    ['registry-get', get('dev-1')],
    ['registry-update-disable', () => hub.update({ deviceId: 'dev-1',
        status: 'disabled', statusReason: 'blocked' })],
    ['get-disabled', get('dev-1')],
    ['update-enable', () => hub.update({ deviceId: 'dev-1',
        status: 'enabled' })],
    ['update-missing', () => hub.update({ deviceId: 'missing' })],
    ['get-missing', get('missing')],
    ['registry-delete', remove('dev-1')],
    ['delete-again', remove('dev-1')],

    ['registry-create-none', create({ deviceId: 'dev-1', status: 'enabled',
        authentication: { type: 'none' } })],
    ['delete-none', remove('dev-1')],
    ['registry-create-selfsigned', create({ deviceId: 'dev-1',
        authentication: { x509Thumbprint: {
            primaryThumbprint: '0'.repeat(40),
            secondaryThumbprint: '1'.repeat(40) } } })],
    ['delete-selfsigned', remove('dev-1')],
    ['registry-create-ca', create({ deviceId: 'dev-1',
        authentication: { type: 'certificateAuthority' } })],
    ['delete-ca', remove('dev-1')],

    ['registry-create-special-id', create({ deviceId: SPECIAL })],
    ['registry-get-special-id', get(SPECIAL)],
    ['create-illegal-id', create({ deviceId: 'invalid/name' })],

    ['get-right-missing', () => reader.create({ deviceId: 'dev-1' })],
    ['get-wrong-key', () => stranger.get('dev-1')],

    ['registry-bulk-add', () => hub.addDevices([
        { deviceId: 'dev-1', status: 'enabled' },
        { deviceId: 'dev-2', status: 'disabled', authentication: {
            symmetricKey: { primaryKey: POLICY_KEY,
                secondaryKey: POLICY_KEY } } },
    ])],
    ['get-bulk-added', get('dev-2')],
    ['registry-bulk-update-force', () => hub.updateDevices(
        [{ deviceId: 'dev-1', status: 'enabled' }], true)],
    ['registry-bulk-update-etag', () => hub.updateDevices(
        [{ deviceId: 'dev-1', status: 'enabled', etag: 'MTIz' }], false)],
    ['get-bulk-updated', get('dev-1')],
    ['bulk-update-its-etag', () => hub.updateDevices(
        [{ deviceId: 'dev-1', status: 'disabled', etag: last.etag }],
        false)],
    ['registry-bulk-remove-force', () => hub.removeDevices(
        [{ deviceId: 'dev-1' }], true)],
    ['get-bulk-removed', get('dev-1')],
    ['list', () => hub.list()],

    // messages, with the device's own key

    ['send-unknown', send(byPolicy, text('x'))],
    ['registry-create-sas-keys', create({ deviceId: 'dev-1',
        status: 'enabled', statusReason: 'created by webhook',
        authentication: { type: 'sas', symmetricKey: keys },
        capabilities: { iotEdge: false } })],
    ['d2c-plain', send(byDevice, text('hello'))],
    ['d2c-full-device-key', send(byDevice, full)],
    ['send-device-secondary', send(() => device('dev-1', null, OTHER_KEY),
        text('second'))],
    ['send-other-device', send(() => device('dev-2', null, OTHER_KEY),
        text('x'))],

    // with the policy's key

    ['d2c-full-policy-key', send(byPolicy, full)],
    ['d2c-all-system', send(byPolicy, allSystem)],
    ['create-special-device', create({ deviceId: SPECIAL_DEVICE })],
    ['d2c-special-id', send(() => device(SPECIAL_DEVICE, 'webhook',
        POLICY_KEY), text('x'))],
    ['d2c-empty-body', send(byPolicy, text(''))],
    ['d2c-binary', send(byPolicy,
        text(Buffer.from([0, 1, 0xfe, 0xff])))],
    ['d2c-prop-special', send(byPolicy, special)],
    ['d2c-batch', () => byPolicy().sendEventBatch(batch())],
    ['send-wrong-key', send(() => device('dev-1', 'webhook', OTHER_KEY),
        text('x'))],
    ['send-too-large', send(byPolicy, text('x'.repeat(300 * 1024)))],
    ['send-disabled', send(() => device('dev-2', 'webhook', POLICY_KEY),
        text('x'))],
];


// The service SDK answers with { responseBody, httpResponse }, the device
// SDK with an object named for what happened.

function outcome(result) {
    const body = result && result.responseBody;
    const http = result && result.httpResponse;

    return {
        ok: true,
        status: http && http.statusCode,
        name: result && result.constructor.name,
        body: body && (Array.isArray(body) ? { list: body } : body),
    };
}


async function run() {
    const outcomes = [];

    for (const [step, action] of STEPS) {
        let result;

        try {
            result = outcome(await action());
        } catch (e) {
            result = { ok: false, name: e.name, message: e.message,
                status: e.response && e.response.statusCode };
        }

        if (result.ok && result.body && result.body.etag) {
            last = result.body;
        }

        outcomes.push({ step, ...result });
    }

    return outcomes;
}


run().then((outcomes) => {
    process.stdout.write(JSON.stringify(outcomes), () => process.exit(0));
}, (e) => {
    process.stderr.write(`${e.stack}\n`, () => process.exit(1));
});
