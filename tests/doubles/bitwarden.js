// A double of a Bitwarden server: as much of its published API as a real `bw` needs to log in with a password, to
// synchronise, and to make and change items. It keeps what a server keeps, encrypted text, and is given one account
// with the items of a file. Everything it is asked for is written to a log, one line each.
//
// node bitwarden.js DIRECTORY: reads `account.json` ({email, password, folders, items}), `cert.pem`, `key.pem` there,
// writes `port` and `requests`. A file `limit` there has it answer 429 to everything.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const https = require('node:https');
const path = require('node:path');

const directory = process.argv[2];
const at = (name) => path.join(directory, name);
const account = JSON.parse(fs.readFileSync(at('account.json'), 'utf8'));
const ITERATIONS = 5000;
const NOW = '2026-01-01T00:00:00.000Z';

// As in Bitwarden's security white paper: type 2, AES-256-CBC and HMAC-SHA-256.
const seal = (key, plain) => {
  const iv = crypto.randomBytes(16);
  const cipher = crypto.createCipheriv('aes-256-cbc', key.subarray(0, 32), iv);
  const text = Buffer.concat([cipher.update(plain), cipher.final()]);
  const mac = crypto.createHmac('sha256', key.subarray(32)).update(iv).update(text).digest();
  return `2.${iv.toString('base64')}|${text.toString('base64')}|${mac.toString('base64')}`;
};
const expand = (key, info) =>
  crypto.createHmac('sha256', key).update(info).update(Buffer.from([1])).digest();
const master = crypto.pbkdf2Sync(account.password, account.email, ITERATIONS, 32, 'sha256');
const proof = crypto.pbkdf2Sync(master, account.password, 1, 32, 'sha256').toString('base64');
const userKey = crypto.randomBytes(64);
const wrapped = seal(Buffer.concat([expand(master, 'enc'), expand(master, 'mac')]), userKey);
const { privateKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
const sealedPrivate = seal(userKey, privateKey.export({ type: 'pkcs8', format: 'der' }));
const userId = crypto.randomUUID();

const text = (value) => (value === null || value === undefined ? null : seal(userKey, Buffer.from(value)));
const folders = (account.folders ?? []).map((folder) => ({
  object: 'folder', id: folder.id, name: text(folder.name), revisionDate: NOW,
}));
const sealedStrings = (object) =>
  object && Object.fromEntries(Object.entries(object).map(([key, value]) => [key, text(value)]));
const cipher = (request, id) => ({
  object: 'cipherDetails', id, organizationId: null, folderId: request.folderId ?? null, type: request.type,
  name: request.name, notes: request.notes ?? null, fields: request.fields ?? null, login: request.login ?? null,
  secureNote: request.secureNote ?? null, card: request.card ?? null, identity: request.identity ?? null,
  sshKey: request.sshKey ?? null, passwordHistory: request.passwordHistory ?? null, favorite: false,
  reprompt: request.reprompt ?? 0, edit: true, viewPassword: true, permissions: { delete: true, restore: true },
  organizationUseTotp: false, attachments: null, collectionIds: [], key: request.key ?? null,
  creationDate: NOW, revisionDate: new Date().toISOString(), deletedDate: null, archivedDate: null,
});
const ciphers = new Map((account.items ?? []).map((item) => {
  const fields = (item.fields ?? []).map((field) => (
    { name: text(field.name), value: text(field.value), type: field.type ?? 0, linkedId: null }));
  const sealed = {
    type: item.type, name: text(item.name), notes: text(item.notes), folderId: item.folderId, fields,
    login: item.login && { ...sealedStrings(item.login), uris: null, fido2Credentials: null },
    secureNote: item.type === 2 ? { type: 0 } : null, card: sealedStrings(item.card),
    identity: sealedStrings(item.identity), sshKey: sealedStrings(item.sshKey),
  };
  const id = item.id ?? crypto.randomUUID();
  return [id, cipher(sealed, id)];
}));

const unlock = {
  salt: account.email, kdf: { kdfType: 0, iterations: ITERATIONS }, masterKeyEncryptedUserKey: wrapped,
};
const claims = () => {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const body = { sub: userId, email: account.email, email_verified: true, name: 'double', premium: false,
    nbf: now, iat: now, exp: now + 3600, iss: 'double', amr: ['Application'], sstamp: 'x', scope: ['api'] };
  return `${part({ alg: 'RS256', typ: 'JWT' })}.${part(body)}.${part('signature')}`;
};
const keys = {
  object: 'privateKeys', signatureKeyPair: null, securityState: null,
  publicKeyEncryptionKeyPair: { object: 'publicKeyEncryptionKeyPair', wrappedPrivateKey: sealedPrivate,
    publicKey: crypto.createPublicKey(privateKey).export({ type: 'spki', format: 'der' }).toString('base64') },
};
const profile = () => ({
  object: 'profile', id: userId, name: 'double', email: account.email, emailVerified: true, premium: false,
  premiumFromOrganization: false, culture: 'en-US', twoFactorEnabled: false, key: wrapped,
  privateKey: sealedPrivate, accountKeys: keys, securityStamp: 'x', forcePasswordReset: false,
  usesKeyConnector: false, verifyDevices: false, creationDate: NOW, avatarColor: null,
  organizations: [], providers: [], providerOrganizations: [],
});
const token = () => ({
  access_token: claims(), expires_in: 3600, token_type: 'Bearer', refresh_token: 'refresh', scope: 'api offline_access',
  Key: wrapped, PrivateKey: sealedPrivate, AccountKeys: keys, Kdf: 0, KdfIterations: ITERATIONS,
  KdfMemory: null, KdfParallelism: null, ForcePasswordReset: false, ResetMasterPassword: false,
  UserDecryptionOptions: { object: 'userDecryptionOptions', HasMasterPassword: true, MasterPasswordUnlock: unlock },
});

const refused = (message) => [400, { message, object: 'error',
  error: 'invalid_grant', ErrorModel: { Message: message, Object: 'error' } }];
const answer = (method, where, body) => {
  switch (`${method} ${where}`) {
    case 'GET /api/config':
      return [200, { object: 'config', version: '2026.6.0', gitHash: 'x', server: null, featureStates: {},
        environment: { cloudRegion: null, vault: null, api: null, identity: null, notifications: null, sso: null } }];
    case 'POST /identity/accounts/prelogin':
    case 'POST /identity/accounts/prelogin/password':
      return [200, { kdf: 0, kdfIterations: ITERATIONS, kdfMemory: null, kdfParallelism: null,
        kdfSettings: unlock.kdf, salt: account.email }];
    case 'POST /identity/connect/token': {
      const form = new URLSearchParams(body);
      if (form.get('grant_type') === 'password' && form.get('password') !== proof) {
        return refused('Username or password is incorrect. Try again.');
      }
      return [200, token()];
    }
    case 'GET /api/accounts/revision-date':
      return [200, Date.now()];
    case 'GET /api/sync':
      return [200, { object: 'sync', profile: profile(), folders, collections: [], policies: [], sends: [],
        ciphers: [...ciphers.values()], domains: { object: 'domains', equivalentDomains: [], globalEquivalentDomains: [] },
        userDecryption: { masterPasswordUnlock: unlock } }];
    case 'POST /api/ciphers': {
      const made = cipher(JSON.parse(body), crypto.randomUUID());
      ciphers.set(made.id, made);
      return [200, made];
    }
  }
  const id = /^\/api\/ciphers\/([0-9a-f-]{36})$/.exec(where)?.[1];
  if (ciphers.has(id) && method === 'GET') return [200, ciphers.get(id)];
  if (ciphers.has(id) && method === 'PUT') {
    const request = JSON.parse(body);
    const known = Date.parse(request.lastKnownRevisionDate);
    if (Math.abs(known - Date.parse(ciphers.get(id).revisionDate)) > 1000) {
      return refused('The cipher you are updating is out of date. Please save your work, sync your vault, and try again.');
    }
    ciphers.set(id, cipher(request, id));
    return [200, ciphers.get(id)];
  }
  return [404, { message: 'Resource not found.', object: 'error' }];
};

const tls = { cert: fs.readFileSync(at('cert.pem')), key: fs.readFileSync(at('key.pem')) };
const server = https.createServer(tls, (request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const where = request.url.split('?')[0];
    fs.appendFileSync(at('requests'), `${request.method} ${where}\n`);
    const [status, body] = fs.existsSync(at('limit'))
      ? [429, { message: 'Too many requests. Please try again later.', object: 'error' }]
      : answer(request.method, where, Buffer.concat(pieces).toString());
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body));
  });
});
server.listen(0, '127.0.0.1', () => {
  fs.writeFileSync(at('port.new'), String(server.address().port));
  fs.renameSync(at('port.new'), at('port'));
});
