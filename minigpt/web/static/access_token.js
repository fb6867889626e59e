// The token of the server's URL: http://127.0.0.1:8000/#token=…

const KEY = "minigpt-token";

/**
 * Return the token of the address, else the one that this browser tab has kept; null without either. The token is
 * removed from the address, so that it is not in the history, in a bookmark or on a projector.
 * @returns {string | null}
 */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    sessionStorage.setItem(KEY, token);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(KEY);
}

/** Forget a token that the server has refused. */
export function forgetToken() {
  sessionStorage.removeItem(KEY);
}
