"""The methods of recipes."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from services.grpckit.context import current
from services.grpckit.errors import FieldViolation, invalid_fields, not_found
from services.grpckit.pages import cut, page_of
from services.registry.calls import Calls, Context
from services.registry.manifests import listed
from services.registry.recipes import wire
from services.registry.recipes.shelf import RecipeShelf
from tuneforge.names import RecipeName
from tuneforge.recipes.description import RecipeDescription, parse_arguments
from tuneforge.recipes.parameters import RecipeError
from tuneforge.v1 import recipes_pb2

_LONGEST_ARGUMENTS = 64 * 1024
_LONGEST_TEXT = 1024
_MOST_PROBLEMS = 200
_OPERATORS = frozenset({"admin", "service"})


class RecipeCalls(Calls):
    """The methods of recipes; they read what the shelf has, and run nothing of it."""

    recipes: RecipeShelf
    """Set by `services.registry.__main__`."""

    async def ListRecipes(
        self, request: recipes_pb2.ListRecipesRequest, context: Context
    ) -> recipes_pb2.ListRecipesResponse:
        """Lists the recipes by name."""
        page = page_of(request.page_size, request.page_token, scope="ListRecipesRequest")
        book = await self.recipes.book()
        names = sorted(name for name in book.recipes if name > (page.after or ""))[: page.size + 1]
        messages = [wire.recipe_to_proto(book.recipes[name]) for name in names]
        entries, token = cut(
            messages, page, lambda each: each.name.partition("/")[2], size_bytes=lambda each: each.ByteSize()
        )
        answer = recipes_pb2.ListRecipesResponse(recipes=entries, next_page_token=token)
        if not page.after and current().principal.roles & _OPERATORS:
            answer.problems.extend(map(wire.problem_to_proto, book.problems[:_MOST_PROBLEMS]))
        return answer

    async def GetRecipe(self, request: recipes_pb2.GetRecipeRequest, context: Context) -> recipes_pb2.Recipe:
        """Returns a recipe."""
        return wire.recipe_to_proto(await self._recipe(request.name))

    async def ResolveRecipe(
        self, request: recipes_pb2.ResolveRecipeRequest, context: Context
    ) -> recipes_pb2.ResolvedRecipe:
        """Puts arguments over a recipe's defaults and returns what a run needs."""
        description = await self._recipe(request.name)
        violations = [
            FieldViolation(field, f"has {len(text)} characters; at most {limit} are taken")
            for field, text, limit in (
                ("arguments_json", request.arguments_json, _LONGEST_ARGUMENTS),
                ("device", request.device, _LONGEST_TEXT),
                ("dataset", request.dataset, _LONGEST_TEXT),
            )
            if len(text) > limit
        ]
        if violations:
            raise invalid_fields(violations)
        try:
            arguments = parse_arguments(request.arguments_json)
            resolved = description.resolve(arguments, device=request.device, dataset=request.dataset)
        except RecipeError as error:
            raise invalid_fields(listed(error.problems)) from None
        return wire.resolved_to_proto(description, resolved)

    async def _recipe(self, text: str) -> RecipeDescription:
        name = RecipeName.parse(text)
        book = await self.recipes.book()
        if name.recipe not in book.recipes:
            raise not_found("recipe", name)
        return book.recipes[name.recipe]
