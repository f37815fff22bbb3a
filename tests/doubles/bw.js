#!/usr/bin/env node
// A double of `bw serve` that does what a broken one might. DIRECTORY/mode says what, DIRECTORY being that of the
// account; each process writes its id into DIRECTORY/../run/started.
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const path = require('node:path');

const directory = process.env.BITWARDENCLI_APPDATA_DIR;
const mode = () => {
  try { return fs.readFileSync(path.join(directory, 'mode'), 'utf8').trim(); } catch { return ''; }
};
fs.appendFileSync(path.join(directory, '../run/started'), `${process.pid}\n`);
fs.writeFileSync(path.join(directory, '../run/arguments'), JSON.stringify(process.argv.slice(2)));
fs.writeFileSync(path.join(directory, '../run/environment'), Object.keys(process.env).join('\n'));

const at = mode();
if (at === 'exit') { console.error('s3cret'); process.exit(3); }
if (at === 'silent exit') process.exit(0);
if (at === 'signed out') { console.error('You are not logged in.'); process.exit(1); }
if (at === 'too old') { console.error('Error: getaddrinfo ENOTFOUND fd+connected://0'); process.exit(1); }
if (at === 'loud') { for (;;) fs.writeSync(2, Buffer.alloc(65536, 's')); }
if (at === 'gigabyte of greeting') {
  try { for (;;) fs.writeSync(0, Buffer.alloc(65536, 's')); } catch { process.exit(0); }
}

const items = [{ object: 'item', type: 1, id: '11111111-1111-4111-8111-111111111111', name: 'web', notes: null,
  fields: [], login: { uris: [], username: 'u', password: 'p', totp: null } }];
const success = (data) => [200, { success: true, data }];
const failure = (message) => [400, { success: false, message }];
const answer = (method, where) => {
  switch (`${method} ${where}`) {
    case 'GET /status': return success({ object: 'template', template: { status: 'locked' } });
    case 'POST /unlock': return success({ object: 'message', title: 'Your vault is now unlocked!' });
    case 'POST /sync':
      return mode() === 'limited' ? failure('Syncing failed: Rate limit exceeded. Try again later.')
        : success({ object: 'message', title: 'Syncing complete.' });
    case 'GET /list/object/items': return success({ object: 'list', data: items });
    case 'GET /list/object/folders': return success({ object: 'list', data: [] });
    default: return failure('Not found.');
  }
};
const server = http.createServer((request, response) => {
  request.resume();
  const isRead = request.url.startsWith('/list');
  const now = mode();
  if (isRead && now === 'hang') return;
  if (isRead && now === 'die') process.kill(process.pid, 'SIGKILL');
  if (isRead && now === 'die midway') {
    response.writeHead(200, { 'content-length': 1000 });
    response.write('{"success":true,');
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), 50);
    return;
  }
  if (isRead && now === 'gigabyte') {
    response.writeHead(200);
    const more = () => { while (response.write(Buffer.alloc(65536, 's'))); response.once('drain', more); };
    more();
    return;
  }
  const bodies = { garbage: 's3cret', 'other json': '{"s3cret":1}', 'no list': '{"success":true,"data":{}}',
    'a wrong list': '{"success":true,"data":{"data":[1,null,{"name":7,"login":"s3cret"},"x"]}}' };
  if (isRead && now in bodies) { response.end(bodies[now]); return; }
  const [status, body] = isRead && now === 'unknown' ? failure('s3cret') : isRead && now === 'locked'
    ? failure('Vault is locked.') : answer(request.method, request.url);
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
});
server.keepAliveTimeout = 0;
server.emit('connection', new net.Socket({ fd: 0, readable: true, writable: true }));
