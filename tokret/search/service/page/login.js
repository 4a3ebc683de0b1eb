// The link of a query stays in the address while the token is entered.

const form = document.getElementById("login");
form.action = `login${location.hash}`;
