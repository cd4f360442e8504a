// Downloads a folder and everything below it with megajs, in one login:
//   MEGAJS=.../megajs/dist/main.node-es.mjs node megajs_tree.mjs GATEWAY EMAIL PASSWORD PATH DIRECTORY
// megajs checks each file's MAC and throws when it differs, where it computes the MAC as other
// clients do. Prints the number of files.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const { Storage } = await import(pathToFileURL(process.env.MEGAJS))
const [gateway, email, password, path, directory] = process.argv.slice(2)

// Chunks end at 128 KiB times 1, 3, 6, ..., 36, then at every further MiB. A file whose last 16-byte
// block ends there (an empty one too) has one chunk more in megajs than anywhere else.
const endsAtBoundary = size => {
  const blocks = Math.ceil(size / 16) * 16
  let at = 0
  for (let length = 131072; at < blocks; length = Math.min(length + 131072, 1048576)) at += length
  return at === blocks
}

// A range, here of all bytes, is not verified.
const content = node => endsAtBoundary(node.size) ? node.downloadBuffer({ end: node.size - 1 }) : node.downloadBuffer()

let files = 0
const fetchFolder = async (folder, local) => {
  mkdirSync(local, { recursive: true })
  for (const node of folder.children ?? []) {
    const to = join(local, node.name)
    if (node.directory) {
      await fetchFolder(node, to)
    } else {
      writeFileSync(to, node.size ? await content(node) : '', { flag: 'wx' })
      files += 1
    }
  }
}

try {
  const storage = await new Storage({ email, password, gateway, userAgent: null, autologin: true, keepalive: false }).ready
  let at = storage.root
  for (const name of path.split('/').filter(Boolean)) {
    at = (at.children ?? []).find(node => node.name === name)
    if (!at) throw new Error(`no ${path}`)
  }
  await fetchFolder(at, directory)
  console.log(files)
  await storage.close().catch(() => {})
  process.exit(0)
} catch (error) {
  console.error(error)
  process.exit(1)
}
