// What the interoperability test asks of megajs, several commands in one login:
//   node megajs.mjs GATEWAY EMAIL PASSWORD COMMAND ARGUMENTS... [-- COMMAND ARGUMENTS...]...
// Prints one JSON value per command and line. The module is resolved from target/peers (NODE_PATH does not work for
// ES modules, so its path comes in MEGAJS).
import { createReadStream, readFileSync, statSync, writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const { Storage, File } = await import(pathToFileURL(process.env.MEGAJS))
const [gateway, email, password, ...words] = process.argv.slice(2)
const batch = [[]]
for (const word of words) {
  if (word === '--') batch.push([])
  else batch.at(-1).push(word)
}

const login = () => new Storage({ email, password, gateway, userAgent: null, autologin: true, keepalive: batch[0][0] === 'watch' }).ready

const find = (storage, path) => {
  let at = storage.root
  for (const name of path.split('/').filter(Boolean)) {
    at = (at.children ?? []).find(n => n.name === name)
    if (!at) throw new Error(`no ${path}`)
  }
  return at
}

const list = (node, path = '') => (node.children ?? []).flatMap(n => [
  { path: `${path}/${n.name}`, directory: !!n.directory, size: n.size ?? 0 },
  ...list(n, `${path}/${n.name}`)
])

const commands = {
  async list (storage) { return list(storage.root) },
  async mkdir (storage, parent, name) {
    return (await find(storage, parent).mkdir(name)).nodeId
  },
  async upload (storage, local, parent, name) {
    const size = statSync(local).size
    const stream = find(storage, parent).upload({ name, size }, size ? undefined : Buffer.alloc(0))
    if (size) createReadStream(local).pipe(stream)
    return (await stream.complete).nodeId
  },
  async download (storage, path, local) {
    // Verifies the MAC itself and throws when it differs.
    const data = await find(storage, path).downloadBuffer()
    writeFileSync(local, data)
    return data.length
  },
  async move (storage, path, parent) {
    await find(storage, path).moveTo(find(storage, parent))
    return true
  },
  async rename (storage, path, name) {
    await find(storage, path).rename(name)
    return true
  },
  async remove (storage, path) {
    await find(storage, path).delete(true)
    return true
  },
  async link (storage, path) { return await find(storage, path).link() },
  async watch (storage, ready, wanted) {
    // Reports when a change by another client makes the path appear.
    writeFileSync(ready, 'ready')
    for (;;) {
      try { return { size: find(storage, wanted).size ?? 0 } } catch {}
      await new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${wanted} never appeared`)), 30000)
        const done = () => { clearTimeout(timer); resolve() }
        storage.once('add', done)
        storage.once('move', done)
        storage.once('update', done)
      })
    }
  }
}

const fetchLink = async (link, local) => {
  const file = File.fromURL(link)
  file.api.gateway = gateway
  await file.loadAttributes()
  const data = await file.downloadBuffer()
  writeFileSync(local, data)
  return { name: file.name, size: data.length }
}

try {
  let storage
  for (const [command, ...args] of batch) {
    let result
    if (command === 'fetch-link') result = await fetchLink(...args)
    else result = await commands[command](storage ??= await login(), ...args)
    console.log(JSON.stringify(result))
  }
  await storage?.close().catch(() => {})
  process.exit(0)
} catch (error) {
  console.error(error)
  process.exit(1)
}
