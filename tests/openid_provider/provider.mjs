// An OpenID provider for tests: oidc-provider with its own login and consent pages, on a free port of loopback.
//
// PROVIDER_MODULES: the node_modules folder that holds oidc-provider. REDIRECT_URL: where clients are sent back to.
// TLS_CERTIFICATE and TLS_KEY: files, for TLS. Writes "issuer URL" when it listens.
//
// Whoever logs in as `ann` is that user. Some names get a bad ID token on purpose: see `damage`.

import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const modules = process.env.PROVIDER_MODULES;
const load = (file) => import(pathToFileURL(path.join(modules, file)).href);
const { default: Provider } = await load('oidc-provider/lib/index.js');
const jose = await load(
  fs.existsSync(path.join(modules, 'jose/dist/node/esm/index.js')) ? 'jose/dist/node/esm/index.js' : 'jose/dist/webapi/index.js',
);

const { TLS_CERTIFICATE, TLS_KEY, REDIRECT_URL } = process.env;
const server = TLS_CERTIFICATE
  ? https.createServer({ cert: fs.readFileSync(TLS_CERTIFICATE), key: fs.readFileSync(TLS_KEY) })
  : http.createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `${TLS_CERTIFICATE ? 'https' : 'http'}://127.0.0.1:${server.address().port}`;

const { privateKey } = await jose.generateKeyPair('RS256', { extractable: true });
const other = await jose.generateKeyPair('RS256', { extractable: true });
const jwk = { ...(await jose.exportJWK(privateKey)), kid: 'test', alg: 'RS256', use: 'sig' };

const client = {
  grant_types: ['authorization_code'],
  response_types: ['code'],
  redirect_uris: [REDIRECT_URL],
};
const provider = new Provider(issuer, {
  clients: [
    { ...client, client_id: 'backstop', client_secret: 'a+secret/with%signs' },
    { ...client, client_id: 'public', token_endpoint_auth_method: 'none' },
    { ...client, client_id: 'by-body', client_secret: 'by-body', token_endpoint_auth_method: 'client_secret_post' },
  ],
  jwks: { keys: [jwk] },
  cookies: { keys: ['test'] },
  pkce: { methods: ['S256'], required: () => true },
  acrValues: ['urn:example:strong'],
  claims: {
    openid: ['sub'],
    email: ['email', 'email_verified'],
    profile: ['given_name', 'family_name', 'preferred_username', 'name'],
  },
  findAccount: (ctx, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      email: `${id}@example.com`,
      given_name: 'Given',
      family_name: 'Family',
      preferred_username: `${id}-preferred`,
    }),
  }),
});

// What is wrong with the ID token of some users: changed claims, or another key.
const damage = {
  'wrong-nonce': (claims) => ({ claims: { ...claims, nonce: 'another' } }),
  'no-nonce': ({ nonce, ...claims }) => ({ claims }),
  'wrong-audience': (claims) => ({ claims: { ...claims, aud: 'someone-else' } }),
  'more-audiences': (claims) => ({ claims: { ...claims, aud: [claims.aud, 'sibling'], azp: claims.aud } }),
  'wrong-issuer': (claims) => ({ claims: { ...claims, iss: 'https://evil.example.com' } }),
  expired: (claims) => ({ claims: { ...claims, iat: claims.iat - 7200, exp: claims.iat - 3600 } }),
  'wrong-key': (claims) => ({ claims, key: other.privateKey }),
  unsigned: (claims) => ({ claims, unsigned: true }),
};

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

provider.use(async (ctx, next) => {
  await next();
  const token = ctx.oidc?.route === 'token' && ctx.body?.id_token;
  if (!token) return;
  const good = jose.decodeJwt(token);
  const how = damage[good.sub];
  if (!how) return;
  const { claims, key, unsigned } = how(good);
  const id_token = unsigned
    ? `${encode({ alg: 'none' })}.${encode(claims)}.`
    : await new jose.SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: 'test' }).sign(key ?? privateKey);
  ctx.body = { ...ctx.body, id_token };
});

server.on('request', provider.callback());
console.log(`issuer ${issuer}`);
