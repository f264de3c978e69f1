// npm `mqtt` against the broker on port argv[2]: ends with 0 when everything is as the standards say.
const assert = require('node:assert')
const path = require('node:path')
const mqtt = require(path.join(process.env.TWINLAKE_NODE_MODULES, 'mqtt'))

const url = `mqtt://127.0.0.1:${process.argv[2]}`

async function connect (options) {
  const client = await mqtt.connectAsync(url, { reconnectPeriod: 0, ...options })
  client.arrived = []
  client.on('message', (topic, payload, packet) => client.arrived.push({ topic, text: payload.toString(), packet }))
  return client
}

async function arrive (client, count) {
  const end = Date.now() + 20000
  while (client.arrived.length < count) {
    assert(Date.now() < end, `${client.arrived.length} of ${count} messages`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  return client.arrived.splice(0)
}

async function main () {
  for (const protocolVersion of [4, 5]) {
    const device = await connect({ protocolVersion, clientId: `node-${protocolVersion}` })
    for (const qos of [1, 2]) {
      const sent = []
      for (let number = 0; number < 200; number++) {
        sent.push(device.publishAsync(`record/${protocolVersion}/${qos}`, String(number), { qos }))
      }
      await Promise.all(sent)
    }

    const listener = await connect({ protocolVersion, clientId: `listener-${protocolVersion}` })
    await device.publishAsync('kept/n', 'retained', { qos: 1, retain: true })
    await listener.subscribeAsync('kept/#', { qos: 1 })
    const [kept] = await arrive(listener, 1)
    assert(kept.text === 'retained' && kept.packet.retain)
    await device.publishAsync('kept/n', '', { qos: 1, retain: true })
    await arrive(listener, 1)

    await listener.subscribeAsync('flow/+/#', { qos: 2 })
    const sent = []
    for (let number = 0; number < 300; number++) {
      sent.push(device.publishAsync(`flow/a/${number % 7}`, String(number), { qos: number % 3 }))
    }
    await Promise.all(sent)
    const flow = await arrive(listener, 300)
    assert.deepStrictEqual(new Set(flow.map(one => one.text)).size, 300)
    await listener.unsubscribeAsync('flow/+/#')
    await device.publishAsync('flow/a/x', 'nobody', { qos: 1 })

    const will = { topic: 'kept/will', payload: Buffer.from('gone'), qos: 1, retain: false }
    const dying = await connect({ protocolVersion, clientId: `dying-${protocolVersion}`, will })
    dying.stream.destroy()
    const [last] = await arrive(listener, 1)
    assert(last.topic === 'kept/will' && last.text === 'gone')
    await device.endAsync()
    await listener.endAsync()
  }

  const properties = { sessionExpiryInterval: 60, receiveMaximum: 2 }
  const options = { protocolVersion: 5, clientId: 'kept-session', clean: false, properties }
  const first = await connect(options)
  await first.subscribeAsync('later/#', { qos: 1, properties: { subscriptionIdentifier: 9 } })
  await first.endAsync(true)
  const other = await connect({ protocolVersion: 5 })
  for (let number = 0; number < 30; number++) {
    await other.publishAsync('later/x', String(number), { qos: 1, properties: { userProperties: { n: String(number) } } })
  }
  const back = await mqtt.connect(url, { reconnectPeriod: 0, ...options })
  back.arrived = []
  back.on('message', (topic, payload, packet) => back.arrived.push({ text: payload.toString(), packet }))
  const later = await arrive(back, 30)
  assert.deepStrictEqual(later.map(one => one.text), [...Array(30).keys()].map(String))
  assert.strictEqual(later[3].packet.properties.userProperties.n, '3')
  assert.strictEqual(later[3].packet.properties.subscriptionIdentifier, 9)
  await back.endAsync()
  await other.endAsync()
}

main().then(() => process.exit(0), error => {
  console.error(error)
  process.exit(1)
})
