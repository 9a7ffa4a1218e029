/** What is shown, in the title of the page: in tabs, bookmarks and the browser's history. */

import { titleOf } from "./titles.js";

/** The title for a sample user or a history of item ids, oldest first, and the names of the models that are shown. */
export function pageTitle(user, ids, models) {
  const latest = ids.length ? titleOf(ids.at(-1)) : null;
  const rest = ids.length > 1 ? ` and ${(ids.length - 1).toLocaleString("en")} more` : "";
  const history = user !== undefined ? `User ${user.user_id}` : latest ? `After ${latest}${rest}` : "Recommendations";
  return [history, ...(models.length ? [models.join(" and ")] : []), "rqrec"].join(" · ");
}
