// The documentation's receiver for Node, and a sender in the same words. One JSON task on standard input, one answer out.
const crypto = require("crypto");
const jwt = require("jsonwebtoken");

function verifyRequest(body, token, secret) {
  let decoded;
  try {
    decoded = jwt.verify(token, secret);
  } catch (err) {
    return false;
  }
  const checksum = crypto.createHash("sha1").update(JSON.stringify(body)).digest("hex");
  return checksum === decoded.checksum;
}

function sign(body, secret, options) {
  const checksum = crypto.createHash("sha1").update(body).digest("hex");
  return jwt.sign({ checksum }, secret, { expiresIn: "1h", ...options });
}

const task = JSON.parse(require("fs").readFileSync(0, "utf8"));
const answer = task.token
  ? verifyRequest(JSON.parse(task.body), task.token, task.secret)
  : sign(task.body, task.secret, task.options);
process.stdout.write(JSON.stringify(answer));
