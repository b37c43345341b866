// A browser for tests: `browser.mjs URL USER` follows the pages of the provider with plain HTTP requests, fills its login
// and consent forms, and writes as JSON with what it is sent back to the site that the login began at.

const [start, user] = process.argv.slice(2);
const origin = new URL(start).origin;
const cookies = new Map();

async function open(url, form) {
  const response = await fetch(url, {
    method: form ? 'POST' : 'GET',
    redirect: 'manual',
    headers: {
      cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; '),
      ...(form ? { 'content-type': 'application/x-www-form-urlencoded' } : {}),
    },
    body: form ? new URLSearchParams(form).toString() : undefined,
  });
  for (const line of response.headers.getSetCookie()) {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
    if (value) cookies.set(name, value);
    else cookies.delete(name);
  }
  return response;
}

let url = start;
let form;
for (let step = 0; step < 20; step += 1) {
  const response = await open(url, form);
  form = undefined;
  const location = response.headers.get('location');
  if (location) {
    url = new URL(location, url).href;
    if (new URL(url).origin !== origin) {
      console.log(JSON.stringify({ to: url, ...Object.fromEntries(new URL(url).searchParams) }));
      process.exit(0);
    }
    continue;
  }
  const page = await response.text();
  const action = /<form[^>]*action="([^"]+)"/.exec(page)?.[1];
  const prompt = /name="prompt" value="([^"]+)"/.exec(page)?.[1];
  if (!action || !prompt) throw new Error(`no form at ${url}: ${response.status} ${page}`);
  url = new URL(action, url).href;
  form = prompt === 'login' ? { prompt, login: user, password: 'any' } : { prompt };
}
throw new Error('it never ends');
