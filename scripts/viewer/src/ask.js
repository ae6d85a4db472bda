// Requests to the server that shows the page.

/** What is wrong with an answer, in the server's words where it has some. */
export async function wordsOf(answer) {
  const said = await answer.json().catch(() => ({}));
  return said.error ?? `the server answered ${answer.status}`;
}

export async function ask(url, options = {}) {
  const answer = await fetch(url, options);
  if (!answer.ok) throw Object.assign(new Error(await wordsOf(answer)), { status: answer.status });
  return answer;
}
